"""The embedded demo: the same bytes everywhere, and a world in which methods can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

import run_all
from benchmark import records
from benchmark.datasets import atomic, demo, load
from benchmark.types import Dataset


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load("demo")


def test_it_is_the_same_on_every_machine_and_every_time(data: Dataset, tmp_path) -> None:
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
        atomic.write(demo.generate(), folder)
    for name in ("demo.inter", "demo.item", "dataset.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert load(str(tmp_path / "1")).sha256 == data.sha256
    assert data.sha256 == "30877baddbd00b0f2d065bfba5a81798fbe1a6a9261e86365af8aef6126c435a"


def test_dice_draw_in_range_and_by_weight() -> None:
    dice = demo.Dice(1)
    assert set(dice.below(3, 1000)) == {0, 1, 2}
    drawn = dice.weighted(np.tile([0, 1, 0, 3], (4000, 1)))
    assert set(drawn) == {1, 3} and 0.72 < (drawn == 3).mean() < 0.78
    assert sorted(dice.permutation(50)) == list(range(50))


def ndcg_at_10(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean over users of 1 / log2(1 + rank) of the target among scores (U, N + 1), ties shared at random."""
    scores = scores + 1e-9 * np.random.default_rng(0).random(scores.shape[1])
    own = scores[np.arange(len(targets)), targets]
    ranks = 1 + (scores[:, 1:] > own[:, None]).sum(1)
    return float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean())


def test_markov_is_far_above_popularity_and_longer_memory_above_markov(data: Dataset) -> None:
    histories = [list(row) for row in data.sequences]
    counts, follows = np.zeros(data.n_items + 1), np.zeros((data.n_items + 1, data.n_items + 1))
    for *train, _, _ in histories:
        np.add.at(counts, train, 1)
        np.add.at(follows, (train[:-1], train[1:]), 1)
    targets, last = np.array([h[-1] for h in histories]), np.array([h[-2] for h in histories])
    popular = counts / counts.max()
    popularity = ndcg_at_10(np.tile(popular, (len(targets), 1)), targets)
    markov = ndcg_at_10(follows[last] + 1e-3 * popular, targets)
    assert popularity > 0.02
    assert markov > 3 * popularity
    # Beyond the last item: the category it leads to, the brands bought most often before, what was bought already.
    brands, code = np.unique(data.item_fields["brand"].astype(str), return_inverse=True)
    liked = np.stack([np.bincount(code[h[:-1]], minlength=len(brands)) for h in histories]) ** 2.0
    liked[:, brands == ""] = 0
    liked /= np.maximum(1, liked.sum(1, keepdims=True))
    assert data.categories is not None
    shelf = np.eye(13)[data.categories]  # (N + 1, categories)
    leads = shelf.T @ follows @ shelf
    reach = (leads / np.maximum(1, leads.sum(1, keepdims=True)) @ shelf.T)[data.categories[last]]  # (U, N + 1)
    appeal = (counts + 1) * reach * (1 + 11 * liked[:, code])
    habit = follows[last] / np.maximum(1, follows[last].sum(1, keepdims=True))
    scores = 0.6 * habit * reach + 0.4 * appeal / appeal.sum(1, keepdims=True)
    for user, history in enumerate(histories):
        scores[user, history[:-1]] = 0
    assert ndcg_at_10(scores, targets) > 1.1 * markov


def test_how_long_a_user_stays_in_a_category_is_the_users_own(data: Dataset) -> None:
    """After two purchases in a category, users whose last stay was two move on; those of four stay."""
    assert data.categories is not None
    moved: dict[int, list[bool]] = {2: [], 4: []}
    for row in data.sequences:
        shelf = data.categories[row]
        starts = np.flatnonzero(np.diff(shelf, prepend=-1))
        stays = np.diff(starts)
        for stay, start in zip(stays, starts[1:], strict=True):
            if stay in moved and start + 2 < len(shelf) and shelf[start] == shelf[start + 1]:
                moved[int(stay)].append(bool(shelf[start + 2] != shelf[start]))
    assert min(map(len, moved.values())) > 200
    assert np.mean(moved[2]) > 2 * np.mean(moved[4])


def test_it_has_a_long_tail_ties_and_cold_answers(data: Dataset) -> None:
    assert (data.n_users, data.n_items, len(data.users)) == (3000, 1136, 27025)
    counts = np.sort(np.bincount(data.items)[1:])[::-1]
    assert 0.55 < counts[: data.n_items // 5].sum() / counts.sum() < 0.75
    assert counts[-1] >= 1 and np.bincount(data.users)[1:].min() == 5
    trained = {item for row in data.sequences for item in row[:-2]}
    assert sum(row[-1] not in trained for row in data.sequences) == 60
    same_user = np.diff(data.users) == 0
    assert 0.2 < (np.diff(data.timestamps) == 0)[same_user].mean() < 0.5
    assert not data.order_only and not (data.timestamps % 86400).any()
    pairs = set(zip(data.users.tolist(), data.items.tolist(), strict=True))
    assert len(pairs) == len(data.users)


def test_late_items_are_bought_late(data: Dataset) -> None:
    first = np.full(data.n_items + 1, np.inf)
    np.minimum.at(first, data.items, data.timestamps)
    released = np.flatnonzero(first > data.timestamps.max() - demo.LATE_DAYS * 86400)
    assert len(released) > 100


def test_text_tells_the_category(data: Dataset) -> None:
    assert data.categories is not None and set(data.categories[1:]) == set(range(1, 13))
    assert data.item_text[0] == "" and all(data.item_text[1:])
    nouns = {noun: path for inner in demo.SHOP.values() for path, nouns in inner.items() for noun in nouns}
    titles, paths = data.item_fields["title"], data.item_fields["categories"]
    for title, path in zip(titles[1:], paths[1:], strict=True):
        _, shelf, noun = path.split(" > ")
        assert nouns[noun] == shelf and (not title or noun in title)
    assert 0 < (titles[1:] == "").sum() < 30 and 100 < (data.item_fields["brand"][1:] == "").sum() < 250


def test_ids_say_nothing_of_popularity_or_category(data: Dataset) -> None:
    counts, ids = np.bincount(data.items)[1:], np.arange(1, data.n_items + 1)
    assert data.categories is not None
    assert abs(np.corrcoef(ids, counts)[0, 1]) < 0.1
    assert abs(np.corrcoef(ids, data.categories[1:])[0, 1]) < 0.1


def test_a_run_of_it_is_verified_by_command_and_a_tampered_one_is_not(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("GENREC_DATA", raising=False)
    results = tmp_path / "results"
    assert run_all.main(["--methods", "popularity,markov", "--output-dir", str(results)]) == 0
    capsys.readouterr()
    assert run_all.main(["verify", str(results)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 passed, 0 failed"
    assert "checked (2 of 2): per-user scores from the lists, to the bit" in lines
    markov = next(one for one in records.read_all(results) if one.method == "markov")
    ranking = markov.ranking()
    hit = int(np.flatnonzero(markov.per_user()["ndcg@10"])[0])
    ranking["items"][hit] = ranking["items"][hit, ::-1]
    kept = {"per_user.npz": markov.per_user(), "ranking.npz": ranking}
    records.write(markov.folder, markov.fields, kept, None)
    assert run_all.main(["verify", str(results)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 1 failed"
    assert any(f"of user {hit + 1} is" in line and "by the lists and the data" in line for line in lines)
