"""SETRec: sets without order, grounding equal to the plain inner products, one pass equal to many."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import protocols
from benchmark.evaluate import mean_metric
from benchmark.method import build_config, replace_nested
from benchmark.run import Run
from benchmark.types import Split
from methods.blocks.backbones import LanguageModel, build
from methods.blocks.item_softmax import Rivals
from methods.setrec import SETRec
from methods.setrec.network import SetNetwork
from methods.setrec.settings import BETAS
from methods.setrec.tokens import ItemTokens, Sought
from tests import toys
from tests.backbone_world import save_causal

N_ITEMS, SEMANTIC = 11, 3
EVERYTHING = Rivals.of(np.ones(N_ITEMS + 1, bool))
QUICK: dict[str, Any] = {
    "training": {"epochs": 2, "patience": 2},
    "collaborative": {"training": {"epochs": 1}},
}


def item_tokens(collaborative: bool = True, text: bool = True, width: int = 8) -> ItemTokens:
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(N_ITEMS + 1, 6, generator=generator)
    texts = torch.randn(N_ITEMS + 1, 9, generator=generator)
    return ItemTokens(
        vectors if collaborative else None,
        texts if text else None,
        width=width,
        semantic=SEMANTIC,
        hidden=(7,),
        bottleneck=5,
    )


def network(name: str = "tiny", *, sparse: bool = True, trained_queries: bool = True) -> SetNetwork:
    torch.manual_seed(0)
    lm = build(LanguageModel(name=name, dropout=0.0), max_length=64)
    items = item_tokens(width=lm.width)
    prompt = {"instruction": "", "response": "", "prompt_vectors": 2}
    return SetNetwork(items, lm, **prompt, sparse=sparse, trained_queries=trained_queries).eval()  # type: ignore[arg-type]


def some_histories(rows: int = 4, length: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randint(1, N_ITEMS + 1, (2, rows, length), generator=generator)
    return drawn[0], drawn[1]


# Tokens


@pytest.mark.parametrize(("collaborative", "text"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("absent", [(), (3, 8, 9)])
def test_losses_are_those_of_inner_products_with_all_tokens(
    collaborative: bool, text: bool, absent: tuple[int, ...]
) -> None:
    """In value and gradient, although no table of all tokens is made; of all items that take part."""
    present = [item for item in range(1, N_ITEMS + 1) if item not in absent]
    items = item_tokens(collaborative, text)
    states = torch.randn(6, items.per_item, 8, requires_grad=True)
    targets = torch.tensor([1, 4, 4, 11, 7, 2])
    weights = [states, *items.parameters()]

    features = items.features()
    corpus = items.tokens(torch.arange(N_ITEMS + 1), features)  # (N + 1, T, D)
    logits = torch.einsum("ptd,ntd->ptn", states, corpus[1:])
    logits = logits[..., [item - 1 for item in present]]
    rows = torch.tensor([present.index(item) for item in targets.tolist()])
    plain = F.cross_entropy(logits.flatten(0, 1), rows.repeat_interleave(items.per_item))
    expected = torch.autograd.grad(plain, weights, allow_unused=True, retain_graph=True)
    among = Rivals.of(np.isin(np.arange(N_ITEMS + 1), present))
    value = items.generation_loss(states, targets, features, among)
    found = torch.autograd.grad(value, weights, allow_unused=True)

    torch.testing.assert_close(value, plain)
    for one, other, weight in zip(found, expected, weights, strict=True):
        zero = torch.zeros_like(weight)  # a bias of the last layer gets none here and rounding there
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other, atol=1e-6, rtol=1e-4)


def test_scores_are_the_weighted_sum_of_the_papers_equation() -> None:
    items = item_tokens()
    states, features = torch.randn(4, items.per_item, 8), items.features()
    corpus = items.tokens(torch.arange(N_ITEMS + 1), features)
    products = torch.einsum("btd,ntd->bnt", states, corpus)
    for beta in (0.0, 0.3, 1.0):
        plain = (1 - beta) * products[..., 0] + beta * products[..., 1:].sum(-1)
        found = items.sought(states).scores(features, beta)
        torch.testing.assert_close(found - found[:, :1], plain - plain[:, :1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("collaborative", "text"), [(True, False), (False, True)])
def test_beta_weighs_nothing_when_there_is_one_kind(collaborative: bool, text: bool) -> None:
    items = item_tokens(collaborative, text)
    sought, features = items.sought(torch.randn(4, items.per_item, 8)), items.features()
    scores = sought.scores(features, 0.0)
    torch.testing.assert_close(scores, sought.scores(features, 1.0))
    assert scores.std() > 0


def test_rebuilding_errors_by_hand() -> None:
    items = item_tokens()
    history = torch.tensor([[3, 5], [5, 5]])
    tokens = items.tokens(history, items.features())
    assert items.text is not None
    with torch.no_grad():
        error = {
            item: (items.decoder(tokens[row, at, 1:].flatten()) - items.text[item]).square().mean().item()
            for item, row, at in ((3, 0, 0), (5, 0, 1))
        }
    assert items.reconstruction_error(history, tokens).item() == pytest.approx((error[3] + 3 * error[5]) / 4)
    weighed = items.reconstruction_error(history, tokens, torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
    assert weighed.item() == pytest.approx((2 * error[3] + error[5]) / 3)
    assert item_tokens(text=False).reconstruction_error(history, tokens) == 0


def test_an_item_needs_a_token() -> None:
    with pytest.raises(ValueError, match="keep one of the two"):
        item_tokens(False, False)


def test_rows_are_joined_and_taken() -> None:
    one, other = Sought(torch.ones(2, 3), None), Sought(torch.zeros(1, 3), None)
    joined = Sought.joined([one, other])
    assert joined.semantic is None and joined.collaborative is not None
    assert joined.collaborative[:, 0].tolist() == [1, 1, 0]
    taken = joined.take(np.array([2, 0]))
    assert taken.collaborative is not None and taken.collaborative[:, 0].tolist() == [0, 1]


# The network


@pytest.mark.parametrize("name", ["tiny", "tiny-t5"])
def test_the_order_of_an_items_tokens_changes_nothing(name: str) -> None:
    model, (history, _) = network(name), some_histories()
    with torch.no_grad():
        tokens = model.items.tokens(history, model.items.features())
        states = model(tokens)
        for order in list(permutations(range(1 + SEMANTIC)))[1::5]:
            torch.testing.assert_close(model(tokens[:, :, list(order)]), states, atol=1e-5, rtol=1e-4)
        mixed = tokens.clone()
        mixed[:, 2] = tokens[:, 2, [3, 1, 0, 2]]  # of one item alone
        torch.testing.assert_close(model(mixed), states, atol=1e-5, rtol=1e-4)


def test_a_plain_causal_mask_tells_an_order() -> None:
    model, (history, _) = network(sparse=False), some_histories()
    with torch.no_grad():
        tokens = model.items.tokens(history, model.items.features())
        difference = (model(tokens[:, :, [3, 1, 0, 2]]) - model(tokens)).abs().max()
    assert difference > 1e-3


@pytest.mark.parametrize("name", ["tiny", "tiny-t5"])
def test_the_order_of_items_counts(name: str) -> None:
    model, (history, _) = network(name), some_histories()
    with torch.no_grad():
        tokens = model.items.tokens(history, model.items.features())
        assert (model(tokens.flip(1)) - model(tokens)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["tiny", "tiny-t5"])
def test_a_query_does_not_know_of_the_others(name: str) -> None:
    model, (history, _) = network(name), some_histories()
    with torch.no_grad():
        tokens = model.items.tokens(history, model.items.features())
        before = model(tokens)
        model.queries[2] += 1.0
        moved = (model(tokens) - before).abs().amax((0, 2))
    assert moved[2] > 1e-3 and moved[[0, 1, 3]].max() < 1e-6


def test_one_pass_equals_one_run_per_prefix() -> None:
    """In loss and gradient, also where some prefixes are not asked about."""
    model, (history, targets) = network(), some_histories()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    wanted = torch.ones_like(history, dtype=torch.bool)
    wanted[1, :3] = wanted[2, 1] = False
    together = model.loss_of_prefixes(history, targets, wanted, EVERYTHING, 0.7)
    losses = [
        model.loss(history[row : row + 1, : place + 1], targets[row : row + 1, place], EVERYTHING, 0.7)
        for row, place in wanted.nonzero().tolist()
    ]
    alone = torch.stack(losses).mean()
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    found, expected = (torch.autograd.grad(loss, weights, materialize_grads=True) for loss in (together, alone))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_states_of_all_prefixes_are_those_of_each() -> None:
    model, (history, _) = network(), some_histories()
    with torch.no_grad():
        tokens = model.items.tokens(history, model.items.features())
        together = model.every_prefix(tokens)
        for n in range(1, history.shape[1] + 1):
            torch.testing.assert_close(together[:, n - 1], model(tokens[:, :n]), atol=1e-5, rtol=1e-5)


def test_frozen_queries_are_kept_but_not_trained() -> None:
    frozen, trained = network(trained_queries=False), network()
    assert "queries" in frozen.state_dict() and "queries" not in dict(frozen.named_parameters())
    assert "queries" in dict(trained.named_parameters())
    assert frozen.queries.std() == pytest.approx(0.02, rel=0.3)


# The room


@cache
def world(name: str = "lonely") -> Split:
    dataset = getattr(toys, name)()
    return protocols.load("warmcold" if name == "arrivals" else "loo").split(dataset)


def method(preset: str | None = None, folder: Path | None = None, **changes: Any) -> SETRec:
    config = replace_nested(replace_nested(build_config(SETRec, None, "smoke"), QUICK), changes)
    config = config if preset is None else replace_nested(config, SETRec.presets[preset])
    return SETRec(config, run=Run(artifacts_dir=folder))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def fitted(artifacts: Path) -> SETRec:
    return method(folder=artifacts).fit(world().train)


def test_beta_is_the_best_on_validation(fitted: SETRec) -> None:
    curve = dict(fitted.training_report()["beta_curve"])
    assert tuple(curve) == BETAS and fitted.beta > 0
    assert curve[fitted.beta] == max(score for beta, score in curve.items() if beta > 0)
    valid = world().train.valid
    for beta in (0.0, 0.4, fitted.beta):
        chosen, fitted.beta = fitted.beta, beta
        ranking = fitted.recommend(valid.cases, 10)
        fitted.beta = chosen
        assert mean_metric(ranking, valid.targets, "ndcg@10") == pytest.approx(curve[beta], abs=1e-6)


def test_a_given_beta_is_left_alone(artifacts: Path) -> None:
    one = method("beta-0.3", artifacts, training={"epochs": 1}).fit(world().train)
    assert one.beta == 0.3 and "beta_curve" not in one.training_report()


def test_saved_and_loaded_it_answers_alike(fitted: SETRec, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    again = SETRec(fitted.config, run=Run()).load(tmp_path / "model", world().train)
    mine, theirs = (one.recommend(world().test.cases, 10) for one in (again, fitted))
    np.testing.assert_array_equal(mine.items, theirs.items)
    np.testing.assert_array_equal(mine.scores, theirs.scores)
    assert again.training_report() == fitted.training_report()


def test_a_damaged_model_is_told(fitted: SETRec, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    content = bytearray((tmp_path / "model").read_bytes())
    content[-9] ^= 1
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        SETRec(fitted.config, run=Run()).load(tmp_path / "model", world().train)


def test_spend_is_one_forward_pass_over_all_items(fitted: SETRec) -> None:
    cases = world().test.cases.take(np.arange(3))
    spend = fitted.recommend(cases, 5).spend
    assert (spend.rule, spend.forward_passes, spend.beam_size) == ("scores", 1.0, 0)
    assert spend.items_scored == world().train.n_items
    assert fitted.recommend(cases, 2, candidates=np.array([4, 9, 2])).spend.items_scored == 3


def test_an_empty_history_is_answered(fitted: SETRec) -> None:
    cases = toys.cases([[], [3, 4]], world().test.cases.tie_order)
    assert (fitted.recommend(cases, 5).items > 0).all()


def test_without_any_text_it_falls_back_to_collaborative_tokens(artifacts: Path) -> None:
    view = world().train
    mute = replace(view, item_text=("",) * (view.n_items + 1))
    assert SETRec.unsuited(mute) is None
    one = method(None, artifacts, training={"epochs": 1}).fit(mute)
    assert one.training_report()["semantic"] == "no text"
    assert one.model.items.per_item == 1
    assert (one.recommend(world().test.cases, 5).items > 0).all()
    json.dumps(dict(one.training_report()))
    with pytest.raises(ValueError, match="has none at all"):
        method("no-cf", artifacts).fit(mute)


def test_cold_items_are_told_apart_by_their_texts(artifacts: Path) -> None:
    split = world("arrivals")
    cold = split.settings["cold"]
    assert cold.candidates is not None
    one = method(None, artifacts).fit(split.train)
    collaborative, known = one.model.items.collaborative, split.train.item_counts > 0
    assert collaborative is not None and not collaborative[cold.candidates].any()
    assert collaborative[known].any() and collaborative[known].mean(0).abs().max() < 1e-6, "zero is not the mean item"
    lists = one.recommend(cold.questions.cases, 5, candidates=cold.candidates)
    assert np.isin(lists.items, cold.candidates).all()
    assert (np.diff(lists.scores, axis=1) < 0).any(), "cold items all have one score"
    beta, one.beta = one.beta, 1.0  # collaborative scores of cold items are equal, so they take no part
    semantic = one.recommend(cold.questions.cases, 5, candidates=cold.candidates)
    np.testing.assert_array_equal(lists.items, semantic.items)
    np.testing.assert_allclose(lists.scores, beta * semantic.scores, rtol=1e-5)


def test_only_collaborative_tokens_cannot_tell_cold_items_apart(artifacts: Path) -> None:
    split = world("arrivals")
    cold = split.settings["cold"]
    one = method("no-sem", artifacts, training={"epochs": 1}).fit(split.train)
    scores = one.recommend(cold.questions.cases, 5, candidates=cold.candidates).scores
    np.testing.assert_allclose(scores, scores[:, :1].repeat(5, 1), rtol=1e-6)


def test_a_length_of_its_own_is_read_of_all_that_was_seen(artifacts: Path) -> None:
    one = method(None, artifacts, history=3, training={"epochs": 1}).fit(world().train)
    split = world()
    short, long = (toys.cases(rows, split.test.cases.tie_order) for rows in ([[5, 2]], [[9, 7, 5, 2]]))
    found = one.recommend(replace(short, seen=long.seen), 5).scores
    np.testing.assert_allclose(found, one.recommend(long, 5).scores)
    assert not np.allclose(found, one.recommend(short, 5).scores)


def test_an_encoder_heeds_its_sparse_mask() -> None:
    sparse, full = network("tiny-t5"), network("tiny-t5", sparse=False)
    with torch.no_grad():
        tokens = sparse.items.tokens(some_histories()[0], sparse.items.features())
        assert (sparse(tokens) - full(tokens)).abs().max() > 1e-4


def test_a_history_beyond_the_language_model_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """With the words around it counted: here they alone are what is too much."""
    save_causal(tmp_path / "gpt2", limit=85)  # 16 items and one to generate, of 5 tokens each
    one = method(None, tmp_path, language_model={"name": "gpt2"}, one_pass=False, history=16)
    one.run.language_models = tmp_path
    with pytest.raises(ValueError, match="vectors is beyond the language model's limit of 85"):
        one.fit(world().train)
    assert not one.run.timings


def test_one_by_one_and_in_one_pass_learn_alike(artifacts: Path) -> None:
    """From equal weights; only how targets share batches differs."""
    settings: dict[str, Any] = {"training": {"epochs": 1}}
    rows = [method(preset, artifacts, **settings).fit(world().train) for preset in ("one-pass", "per-prefix")]
    losses = [row.training_report()["curve"][0]["loss"] for row in rows]
    assert losses[0] == pytest.approx(losses[1], rel=0.15)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"language_model": {"name": "tiny-t5"}}, "set one_pass to False"),
        ({"prompt": "no place for it"}, "exactly once"),
        ({"beta": 1.5}, "between 0 and 1"),
        ({"language_model": {"name": "tinny"}}, "tiny"),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        method(**changes).fit(world().train)


def test_an_encoder_decoder_is_trained_too(artifacts: Path) -> None:
    name = {"name": "tiny-t5"}
    one = method("per-prefix", artifacts, language_model=name, training={"epochs": 1}).fit(world().train)
    assert (one.recommend(world().test.cases, 5).items > 0).all()


def test_a_pretrained_model_reads_the_prompt_around_the_history(artifacts: Path, tmp_path: Path) -> None:
    save_causal(tmp_path / "lm")
    settings = {"name": "qwen3-0.6b", "weights": str(tmp_path / "lm"), "lora_targets": ("q_proj", "v_proj")}
    changes = {"language_model": settings, "prompt": "word1 word2 {history} word3;", "history": 3, "tokens": 1}
    one = method(None, artifacts, training={"epochs": 1}, **changes).fit(world().train)
    assert (len(one.model.instruction()), len(one.model.response())) == (2, 2)  # the sign is a word unknown to it
    trained = {name for name, weight in one.model.named_parameters() if weight.requires_grad}
    assert all("lora" in name for name in trained if name.startswith("lm.")) and "queries" in trained
    one.save(tmp_path / "model")
    again = SETRec(one.config, run=Run()).load(tmp_path / "model", world().train)
    cases = world().test.cases
    np.testing.assert_array_equal(again.recommend(cases, 5).items, one.recommend(cases, 5).items)


@pytest.mark.parametrize("preset", sorted(SETRec.presets))
def test_every_preset_is_a_config(preset: str) -> None:
    for profile in ("smoke", "small", "full"):
        config = build_config(SETRec, preset, profile)
        assert SETRec.estimate(config, 1000, 500, 8000).seconds > 0  # type: ignore[union-attr]
        SETRec(config)._check()


def test_the_paper_track_is_the_cards_recipe() -> None:
    config = build_config(SETRec, None, "full", "paper")
    assert config.language_model.name == "t5-small" and config.history == 50 and not config.one_pass
    assert (config.training.batch_size, config.training.epochs, config.training.warmup_steps) == (512, 30, 100)
    assert (config.hidden, config.bottleneck, config.tokens, config.alpha) == ((512, 256), 128, 4, 0.7)
    assert config.collaborative.width == 64 and config.scaling == "none"
