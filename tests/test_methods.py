"""The contract, kept by every method of the lineup at the smoke profile, and the floors counted by hand."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

import methods
import protocols
from benchmark.artifacts import cached
from benchmark.evaluate import check, mean_metric
from benchmark.lists import tie_order
from benchmark.method import Entrant, Method, build_config, config_dict, replace_nested
from benchmark.run import Run
from benchmark.types import PAD, Budget, Cases, Dataset, Ranking, Sequences, Split
from methods.itemknn import ItemKNN, similarities
from methods.markov import Markov
from tests import toys

LINEUP = methods.lineup()
BUDGET = Budget(beam_size=20, list_length=20)
K = 10

BLIND_TO_ORDER = {"popularity", "itemknn", *(f"recbole:{m}@drop-seen" for m in ("BPR", "LightGCN", "ItemKNN", "Pop"))}
"""popularity ignores the history; itemknn without @drop-seen puts the history itself first; general models know who
had what, which on a ring says where a user is but not which way he goes."""
BY_PLACE = {"recbole:BERT4Rec", "recbole:Caser", "recbole:HGN"}
"""Their weights belong to places in the history; test_recbole_models.py asks them where lengths differ."""
FLOOR_TRAINING = {"epochs": 40, "patience": 40, "batch_size": 64, "learning_rate": 5e-3, "warmup_steps": 0}
"""The ring is so small that the smoke profile's few large batches would be a handful of steps."""
GENERATOR_FLOOR = {
    "training": {"epochs": 80, "learning_rate": 2e-3, "batch_size": 16},
    "backbone": {"dropout": 0.2},
}
GENTLY = {"tuning": {"learning_rate": 1e-4}}
OWN_FLOOR = {
    "tiger": GENERATOR_FLOOR,
    "letter": GENERATOR_FLOOR | {"backbone": {"dropout": 0.3}},
    "genplugin:tiger": GENERATOR_FLOOR | {"plugin": GENTLY},
    "genplugin:letter": {
        "training": {"epochs": 120, "learning_rate": 1e-3, "batch_size": 16},
        "backbone": {"dropout": 0.2},
        # Twelve items fill a batch several times over, so most negatives of the contrast are no negatives.
        "plugin": GENTLY | {"alignment": {"item_weight": 0.01, "user_weight": 0.05}},
    },
}
"""A generator has the codes to learn before the order, and 180 pairs by heart before either."""


@cache
def split_of(world: str) -> Split:
    return split(getattr(toys, world)())


def split(dataset: Dataset) -> Split:
    return protocols.load("loo").split(dataset)


def build(entrant: Entrant, training: dict[str, float] | None = None) -> Method:
    config = build_config(entrant.cls, entrant.preset, "smoke")
    if training is not None and hasattr(config, "training"):
        config = replace_nested(config, {"training": training})
    return entrant.cls(config, argument=entrant.argument, run=Run(seed=0))


@pytest.fixture(scope="module", params=LINEUP)
def entrant(request: pytest.FixtureRequest) -> Entrant:
    one = methods.load(request.param)
    reason = one.cls.unsuited(split(toys.lonely()).train)
    if reason is not None:
        pytest.skip(reason)
    return one


@pytest.fixture(scope="module")
def world(entrant: Entrant) -> Split:
    """The lonely world, untouched by other methods."""
    return split(toys.lonely())


@pytest.fixture(scope="module")
def fitted(entrant: Entrant, world: Split) -> Method:
    return build(entrant).fit(world.train)


@pytest.fixture(scope="module")
def cases(world: Split) -> Cases:
    return world.test.cases


@pytest.fixture(scope="module")
def ranking(fitted: Method, cases: Cases) -> Ranking:
    return fitted.recommend(cases, K, budget=BUDGET)


def assert_same(a: Ranking, b: Ranking) -> None:
    np.testing.assert_array_equal(a.users, b.users)
    np.testing.assert_array_equal(a.items, b.items)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-6)


def test_lists_are_well_formed(ranking: Ranking, cases: Cases) -> None:
    n_items = split_of("lonely").train.n_items
    assert ranking.items.shape == ranking.scores.shape == (len(cases), K)
    assert ranking.items.dtype == np.int32 and ranking.scores.dtype == np.float32
    np.testing.assert_array_equal(ranking.users, cases.users)
    for items, scores in zip(ranking.items, ranking.scores, strict=True):
        named = items[items != PAD]
        assert len(set(named.tolist())) == len(named), "an item twice in one list"
        assert (items[: len(named)] != PAD).all(), "PAD before the end"
        assert ((named >= -1) & (named <= n_items)).all()
        assert np.isneginf(scores[items == PAD]).all()
        assert (scores[:-1] >= scores[1:]).all(), "scores rise"
        assert np.isfinite(scores[items != PAD]).all()


def test_the_harness_accepts_lists_and_spend(ranking: Ranking, cases: Cases) -> None:
    check(ranking, cases, split_of("lonely").train.n_items, K, BUDGET)
    assert ranking.spend.items_scored >= K


def test_same_seed_gives_same_lists(entrant: Entrant, ranking: Ranking, cases: Cases) -> None:
    again = build(entrant).fit(split_of("lonely").train).recommend(cases, K, budget=BUDGET)
    np.testing.assert_array_equal(again.items, ranking.items)
    np.testing.assert_array_equal(again.scores, ranking.scores)


def test_a_second_question_gets_the_same_answer(fitted: Method, ranking: Ranking, cases: Cases) -> None:
    assert_same(fitted.recommend(cases, K, budget=BUDGET), ranking)


def test_a_second_fit_forgets_the_first(entrant: Entrant, ranking: Ranking, cases: Cases) -> None:
    method = build(entrant).fit(split_of("twins").train).fit(split_of("lonely").train)
    again = method.recommend(cases, K, budget=BUDGET)
    np.testing.assert_array_equal(again.items, ranking.items)
    np.testing.assert_array_equal(again.scores, ranking.scores)


def test_fit_and_recommend_leave_what_they_are_given_alone(world: Split, ranking: Ranking) -> None:
    fresh = split(toys.lonely())
    for mine, theirs in (
        (world.train.sequences, fresh.train.sequences),
        (world.train.valid.cases.histories, fresh.train.valid.cases.histories),
        (world.test.cases.histories, fresh.test.cases.histories),
        (world.test.cases.seen, fresh.test.cases.seen),
    ):
        np.testing.assert_array_equal(mine.items, theirs.items)
        np.testing.assert_array_equal(mine.offsets, theirs.offsets)


def test_one_case_alone_is_answered_as_in_company(fitted: Method, ranking: Ranking, cases: Cases) -> None:
    for row in (0, 7, len(cases) - 3, len(cases) - 2, len(cases) - 1):
        alone = fitted.recommend(cases.take(np.array([row])), K, budget=BUDGET)
        np.testing.assert_array_equal(alone.items[0], ranking.items[row])
        np.testing.assert_allclose(alone.scores[0], ranking.scores[row], rtol=1e-5, atol=1e-6)


def test_the_order_of_users_does_not_matter(fitted: Method, ranking: Ranking, cases: Cases) -> None:
    order = np.random.default_rng(0).permutation(len(cases))
    shuffled = fitted.recommend(cases.take(order), K, budget=BUDGET)
    assert_same(shuffled, Ranking(ranking.users[order], ranking.items[order], ranking.scores[order], ranking.spend))


def test_more_items_may_be_asked_for_than_there_are(fitted: Method, cases: Cases) -> None:
    n_items = split_of("lonely").train.n_items
    few = cases.take(np.arange(5))
    lists = fitted.recommend(few, n_items + 5, budget=Budget(beam_size=n_items + 5, list_length=n_items + 5))
    check(lists, few, n_items, n_items + 5, Budget(beam_size=n_items + 5, list_length=n_items + 5))
    assert (lists.items[:, n_items:] == PAD).all()


def test_odd_histories_are_answered(fitted: Method, cases: Cases) -> None:
    n_items = unseen = split_of("lonely").train.n_items
    assert split_of("lonely").train.item_counts[unseen] == 0
    long = [1 + i % (n_items - 1) for i in range(45)]
    odd = toys.cases([[3], [unseen], [3, unseen], long], cases.tie_order)
    lists = fitted.recommend(odd, K, budget=BUDGET)
    check(lists, odd, n_items, K, BUDGET)
    assert (lists.items[:, 0] != PAD).all()


def test_only_candidates_are_ranked(fitted: Method, ranking: Ranking, cases: Cases) -> None:
    candidates = np.array([2, 3, 5, 7, 11, 13])
    lists = fitted.recommend(cases, K, candidates=candidates, budget=BUDGET)
    assert set(np.unique(lists.items)) <= {PAD, *candidates.tolist()}
    full = fitted.recommend(cases, len(cases.tie_order) - 1, budget=Budget(beam_size=99, list_length=99))
    for narrow, wide in zip(lists.items, full.items, strict=True):
        expected = wide[np.isin(wide, candidates)]
        np.testing.assert_array_equal(narrow[narrow != PAD], expected[:K])


def test_cold_items_can_be_ranked_and_validation_has_candidates(entrant: Entrant) -> None:
    """Under warmcold: fit among the split's candidates, then rank the items nobody bought in training."""
    world = protocols.load("warmcold").split(toys.arrivals())
    cold = world.settings["cold"]
    assert cold.candidates is not None and len(cold.candidates) > 3
    method = build(entrant).fit(world.train)
    lists = method.recommend(cold.questions.cases, K, candidates=cold.candidates, budget=BUDGET)
    check(lists, cold.questions.cases, world.train.n_items, K, BUDGET, cold.candidates)
    seen = [np.isin(cold.candidates, had).sum() for had in cold.questions.cases.seen]
    left = len(cold.candidates) - np.array(seen) * ("drop-seen" in entrant.name)
    np.testing.assert_array_equal((lists.items != PAD).sum(1), np.minimum(K, left))


def test_config_round_trips_through_json(entrant: Entrant) -> None:
    for profile in ("smoke", "small", "full"):
        config = build_config(entrant.cls, entrant.preset, profile)
        assert replace_nested(type(config)(), json.loads(json.dumps(config_dict(config)))) == config


def test_estimates_and_reports_are_plain(entrant: Entrant, fitted: Method) -> None:
    json.dumps(dict(fitted.training_report()), allow_nan=False)
    assert fitted.parameters() >= 0
    guess = entrant.cls.estimate(fitted.config, 1000, 500, 8000)
    assert guess is None or (guess.seconds > 0 and guess.memory_bytes > 0)


def test_stages_are_timed(fitted: Method, ranking: Ranking) -> None:
    assert {"train", "decode"} <= fitted.run.timings.keys()


def test_order_is_learned_on_the_conveyor(entrant: Entrant) -> None:
    if entrant.name in BY_PLACE:
        pytest.skip("all users have one length here, so the place that is asked for was never trained")
    world = split(toys.conveyor(n_items=12, n_users=60, length=6))
    method = build(entrant, FLOOR_TRAINING)
    method.config = replace_nested(method.config, OWN_FLOOR.get(entrant.name, {}))
    method.fit(world.train)
    first_two = method.recommend(world.test.cases, 2, budget=BUDGET)
    recall = mean_metric(first_two, world.test.targets, "recall@2")
    assert recall < 0.6 if entrant.name in BLIND_TO_ORDER else recall > 0.9


@pytest.mark.parametrize("name", [name for name in LINEUP if "drop-seen" in name])
def test_drop_seen_never_recommends_what_the_user_had(name: str) -> None:
    cases = split_of("lonely").test.cases
    method = build(methods.load(name)).fit(split_of("lonely").train)
    lists = method.recommend(cases, len(cases.tie_order) - 1, budget=BUDGET)
    for items, seen in zip(lists.items, cases.seen, strict=True):
        assert not np.isin(items, seen).any()
        assert (items != PAD).sum() == len(cases.tie_order) - 1 - len(np.unique(seen))


def test_markov_by_hand() -> None:
    cases = toys.cases([[4, 1], [3], [5]], tie_order(5, seed=1))
    lists = Markov().fit(toys.four_users()).recommend(cases, 5)
    # Bought 4, 3, 2, 1, 0 times. After 1 came 2 twice and 3 once; after 3 came 4 once; 5 was never there.
    np.testing.assert_array_equal(lists.items, [[2, 3, 1, 4, 5], [4, 1, 2, 3, 5], [1, 2, 3, 4, 5]])
    popularity = 1e-3 * np.array([4, 3, 2, 1, 0]) / 4
    np.testing.assert_allclose(lists.scores[0], [2 + popularity[1], 1 + popularity[2], *popularity[[0, 3, 4]]])
    np.testing.assert_allclose(lists.scores[2], popularity, rtol=1e-6)


def test_markov_does_not_count_from_one_user_to_the_next() -> None:
    follows = Markov().fit(toys.four_users()).follows.toarray()
    assert follows.sum() == 6 and follows[3, 1] == 0 and follows[1, 2] == 2


def test_itemknn_similarity_by_hand() -> None:
    view = toys.four_users()
    expected = np.zeros((6, 6))
    # Users of 1: all four; of 2: three; of 3: two; of 4: one.
    expected[1, 2] = expected[2, 1] = 3 / np.sqrt(4 * 3)
    expected[1, 3] = expected[3, 1] = 2 / np.sqrt(4 * 2)
    expected[1, 4] = expected[4, 1] = 1 / np.sqrt(4 * 1)
    expected[2, 3] = expected[3, 2] = 1 / np.sqrt(3 * 2)
    expected[3, 4] = expected[4, 3] = 1 / np.sqrt(2 * 1)
    np.testing.assert_allclose(similarities(view.sequences, 5, 100).toarray(), expected, rtol=1e-6)


def test_itemknn_keeps_the_nearest_and_all_that_tie_with_the_last() -> None:
    nearest = similarities(toys.four_users().sequences, 5, 1).toarray()
    # 3 is as near to 1 as to 4 (cosine sqrt(1/2)); everybody else has one nearest item.
    assert [set(np.flatnonzero(row)) for row in nearest] == [set(), {2}, {1}, {1, 4}, {3}, set()]


def test_itemknn_scores_by_hand() -> None:
    cases = toys.cases([[3, 2]], tie_order(5, seed=1))
    plain = ItemKNN().fit(toys.four_users()).recommend(cases, 5)
    of_1 = 3 / np.sqrt(12) + 2 / np.sqrt(8)
    of_4 = 1 / np.sqrt(2)
    between = 1 / np.sqrt(6)  # 2 and 3, each near the other
    np.testing.assert_array_equal(plain.items[0, :2], [1, 4])
    np.testing.assert_allclose(plain.scores[0], [of_1, of_4, between, between, 0], rtol=1e-6)
    recent = ItemKNN(ItemKNN.Config(recency=0.5)).fit(toys.four_users()).recommend(cases, 5)
    np.testing.assert_array_equal(recent.items[0], [1, 3, 4, 2, 5])
    half = [3 / np.sqrt(12) + 1 / np.sqrt(8), between, of_4 / 2, between / 2, 0]
    np.testing.assert_allclose(recent.scores[0], half, rtol=1e-6)
    unseen = ItemKNN(ItemKNN.Config(drop_seen=True)).fit(toys.four_users()).recommend(cases, 5)
    np.testing.assert_array_equal(unseen.items[0], [1, 4, 5, PAD, PAD])


def test_itemknn_does_not_depend_on_how_items_are_numbered() -> None:
    world = split_of("conveyor").train
    to = np.concatenate([[0], 1 + np.random.default_rng(3).permutation(world.n_items)])
    renumbered = Sequences(to[world.sequences.items].astype(np.int32), world.sequences.offsets)
    for neighbours in (1, 3):
        one = similarities(world.sequences, world.n_items, neighbours).toarray()
        other = similarities(renumbered, world.n_items, neighbours).toarray()
        np.testing.assert_array_equal(other[np.ix_(to, to)], one)


def test_itemknn_in_blocks_equals_the_dense_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.itemknn.BLOCK_ITEMS", 7)
    view = split_of("lonely").train
    had = np.zeros((len(view.sequences), view.n_items + 1))
    had[view.sequences.row_of, view.sequences.items] = 1
    both = had.T @ had
    norm = np.sqrt(np.outer(had.sum(0), had.sum(0)))
    cosine = np.divide(both, norm, out=np.zeros_like(both), where=norm > 0)
    np.fill_diagonal(cosine, 0)
    np.testing.assert_allclose(similarities(view.sequences, view.n_items, 1000).toarray(), cosine, atol=1e-6)


def test_itemknn_presets_share_one_artifact(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def counting(folder, key, compute):
        return cached(folder, key, lambda: computed.append(key) or compute())

    monkeypatch.setattr("methods.itemknn.cached", counting)
    view, run = toys.four_users(), Run(artifacts_dir=tmp_path)
    first = ItemKNN(run=run).fit(view)
    second = ItemKNN(ItemKNN.Config(drop_seen=True, recency=0.5), run=run).fit(view)
    assert len(computed) == 1
    np.testing.assert_array_equal(first.similar.toarray(), second.similar.toarray())
    ItemKNN(ItemKNN.Config(neighbours=1), run=run).fit(view)
    ItemKNN(run=run).fit(split_of("twins").train)
    assert len(computed) == 3
