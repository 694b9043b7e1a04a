"""Nearest vectors, the two lists made one, and whose items may speak for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import protocols
from benchmark.types import Dataset, Questions, Sequences, TrainingView
from methods.blocks import nearest
from methods.blocks.bm25 import BM25, item_counts, pseudo_documents, term_counts
from methods.blocks.nearest import NOBODY, best_columns, top_cosine
from methods.blocks.next_item import NextItemPairs
from methods.genplugin import neighbours
from methods.genplugin.neighbours import (
    alternate,
    case_queries,
    corpus_windows,
    cosines,
    merge,
    paper_corpora,
    training_queries,
)
from tests import toys


def whole_numbers(rows: int, seed: int, width: int = 3) -> np.ndarray:
    """Vectors on a coarse grid: many twins, zeros and exact ties, whatever the length."""
    return np.random.default_rng(seed).integers(-1, 2, (rows, width)).astype(np.float32)


def brute_force(documents: np.ndarray, queries: np.ndarray, k: int, exclude: np.ndarray) -> tuple:
    lengths = np.linalg.norm(documents, axis=1) * np.linalg.norm(queries, axis=1)[:, None]
    products = queries.astype(float) @ documents.T.astype(float)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    rows, scores = np.full((len(queries), k), NOBODY), np.full((len(queries), k), -np.inf)
    for q, line in enumerate(np.round(cosines, 6)):
        order = [row for row in np.lexsort((np.arange(len(line)), -line)) if row != exclude[q]][:k]
        rows[q, : len(order)], scores[q, : len(order)] = order, line[order]
    return rows, scores


@pytest.mark.parametrize("blocks", [(512, 4096), (4, 7), (1, 1), (3, 30)])
@pytest.mark.parametrize("k", [1, 5, 29, 30, 40])
def test_top_cosine_is_the_brute_force(monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int], k: int) -> None:
    monkeypatch.setattr(nearest, "BLOCK_QUERIES", blocks[0])
    search = nearest.search
    monkeypatch.setattr(nearest, "search", lambda *given, **named: search(*given, **named, block_documents=blocks[1]))
    documents, queries = whole_numbers(30, 0), whole_numbers(17, 1)
    exclude = np.random.default_rng(2).integers(-1, 30, 17)
    rows, scores = brute_force(documents, queries, k, exclude)
    found = top_cosine(documents, queries, k, exclude)
    assert (found.rows == rows).all() and found.rows.dtype == np.int32
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)


def test_a_zero_vector_is_like_nobody_and_still_has_neighbours() -> None:
    documents = np.array([[0, 0], [1, 0], [-1, 0], [0, 2]], np.float32)
    found = top_cosine(documents, np.array([[0, 0], [3, 0]], np.float32), 4, np.array([NOBODY, 1]))
    assert found.rows.tolist() == [[0, 1, 2, 3], [0, 3, 2, NOBODY]]
    assert found.scores.tolist() == [[0, 0, 0, 0], [0, 0, -1, -np.inf]]


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1, max_size=4), k=st.integers(1, 8)
)
def test_best_columns_take_the_lower_of_equals(scores: list[list[int]], k: int) -> None:
    block = torch.tensor(scores).float()
    columns, values = best_columns(block, k)
    for line, found, value in zip(scores, columns.tolist(), values.tolist(), strict=True):
        order = sorted(range(6), key=lambda column: (-line[column], column))[:k]
        assert found == order + [NOBODY] * (k - len(order))
        assert value == [line[column] for column in order] + [-np.inf] * (k - len(order))


CONTENT = np.array([[3, 1, 2], [7, NOBODY, NOBODY], [NOBODY] * 3, [5, 6, 8]])
BEHAVIOUR = np.array([[2, 4, 5, 3], [8, 9, 6, 0], [NOBODY] * 4, [8, 6, 5, NOBODY]])
LIKENESS = np.array([0.5, 0.9, -0.2, 0.1, 0.8, 0.9, 0.3, 0.0, -1.0, 0.2])  # by row


def test_merge_by_hand() -> None:
    similarity = LIKENESS[np.concatenate([CONTENT, BEHAVIOUR], axis=1)]
    assert merge(CONTENT, BEHAVIOUR, similarity, 6).tolist() == [
        [3, 2, 1, 5, 4, NOBODY],  # 3 and 2 stand in both lists; 1 and 5 are equally alike
        [0, 6, 9, 7, 8, NOBODY],
        [NOBODY] * 6,
        [5, 6, 8, NOBODY, NOBODY, NOBODY],
    ]
    assert merge(CONTENT, BEHAVIOUR, similarity, 2).tolist() == [[3, 2], [0, 6], [NOBODY] * 2, [5, 6]]


def test_without_re_ranking_the_lists_take_turns() -> None:
    assert alternate(CONTENT, BEHAVIOUR, 5).tolist() == [
        [3, 2, 1, 4, 5],
        [7, 8, 9, 6, 0],
        [NOBODY] * 5,
        [5, 8, 6, NOBODY, NOBODY],
    ]
    assert alternate(BEHAVIOUR, CONTENT, 3)[0].tolist() == [2, 3, 4]


def made_up_lists(queries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists of 6 and 4 distinct rows of 12, some cut short."""
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(12) for _ in range(2 * queries)]).reshape(2, queries, 12)
    lists = np.where(np.arange(12) < rng.integers(0, 7, (2, queries, 1)), lists, NOBODY)
    return lists[0, :, :6], lists[1, :, :4]


@pytest.mark.parametrize("n", [1, 4, 10, 13])
def test_merge_is_the_plain_loop_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    content, behaviour = made_up_lists(50, 0)
    queries, documents = whole_numbers(50, 1), whole_numbers(12, 2)
    likeness = cosines(queries, documents)(slice(0, 50), np.tile(np.arange(12), (50, 1)))  # (50, 12)
    for size in (1, 7, 1024):
        monkeypatch.setattr(neighbours, "BLOCK_QUERIES", size)
        merged = merge(content, behaviour, cosines(queries, documents), n)
        for q in range(50):
            first, second = set(content[q]) - {NOBODY}, set(behaviour[q]) - {NOBODY}
            order = sorted(first | second, key=lambda row: (row not in first & second, -likeness[q, row], row))[:n]
            assert merged[q].tolist() == order + [NOBODY] * (n - len(order))


def test_rows_of_both_lists_are_never_lost() -> None:
    """Whatever the similarity says against them."""
    content, behaviour = made_up_lists(50, 3)
    both = [set(a) & set(b) - {NOBODY} for a, b in zip(content, behaviour, strict=True)]
    against = np.where((content[:, :, None] == behaviour[:, None]).any(2), -1.0, 1.0)
    merged = merge(content, behaviour, np.concatenate([against, np.ones(behaviour.shape)], axis=1), 4)
    assert any(both) and all(kept <= set(line) for kept, line in zip(both, merged, strict=True))


def test_cosine_of_zeros_is_zero() -> None:
    likeness = cosines(np.array([[0, 0], [2, 0]]), np.array([[0, 0], [1, 1], [-3, 0]]))
    found = likeness(slice(0, 2), np.array([[0, 1, 2], [0, 1, 2]]))
    np.testing.assert_allclose(found, [[0, 0, 0], [0, 0.5**0.5, -1]], atol=1e-7)


@pytest.mark.parametrize("max_history", [2, 20])
def test_training_queries_stand_in_the_order_of_the_pairs(max_history: int) -> None:
    view = replace(protocols.load("loo").split(toys.lonely()).train, max_history=max_history)
    pairs = NextItemPairs(view, torch.device("cpu"))
    windows, own = training_queries(view)
    assert len(windows) == len(own) == len(pairs.targets)
    assert (view.users[own] == pairs.users.numpy()).all()
    for row, length in enumerate(pairs.lengths.tolist()):
        history = pairs.take(torch.tensor([row]), length)[1][0]
        assert windows[row].tolist() == history.tolist()


def test_cases_ask_with_their_own_history_and_leave_out_their_own_row() -> None:
    view = replace(toys.four_users(), n_users=9, users=np.array([2, 5, 6, 9]), max_history=2)
    asked = replace(toys.cases([[1, 2, 3], [4], []], np.arange(6)), users=np.array([9, 1, 2]))
    windows, own = case_queries(view, asked)
    assert own.tolist() == [3, NOBODY, 0]
    assert [window.tolist() for window in windows] == [[2, 3], [4], []]


def test_paper_corpora_are_slices_of_whole_histories() -> None:
    dataset = toys.lonely()
    view = protocols.load("loo").split(dataset).train
    for windows, stop in zip(paper_corpora(view), (-3, -2, -1), strict=True):
        assert len(windows) == len(view.users)
        for user, window in zip(view.users, windows, strict=True):
            assert window.tolist() == dataset.sequences[user - 1][-20:stop].tolist()


def moved(world: Dataset, change: Callable[[np.ndarray, int], np.ndarray]) -> Dataset:
    """The world with the last two items of every history changed: nobody's training items."""
    items = world.sequences.items.copy()
    for user, end in enumerate(world.sequences.offsets[1:]):
        items[end - 2 : end] = change(items[end - 2 : end], user)
    order = world.chronological
    return replace(world, items=items[np.argsort(order)], sha256="moved")


def found_in_training(view: TrainingView, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours of all training pairs by content, by a vector of item counts, and both merged."""
    counts, corpus = term_counts(view.item_text), corpus_windows(view)
    windows, own = training_queries(view)
    asked = item_counts(windows, view.n_items)
    content = BM25(pseudo_documents(counts, corpus)).top(asked, k, own, parts=counts).rows
    documents, queries = item_counts(corpus, view.n_items).toarray(), asked.toarray()
    behaviour = top_cosine(documents, queries, k, own).rows
    return merge(content, behaviour, cosines(queries, documents), k), own


def test_answers_change_no_neighbour_of_training() -> None:
    """Other validation and test items for everybody: the same corpus, queries and neighbours."""
    world = toys.conveyor()
    split = protocols.load("loo").split
    other = split(moved(world, lambda items, user: (items + user) % world.n_items + 1)).train
    view = split(world).train
    assert (view.valid.targets.items != other.valid.targets.items).any()
    assert (found_in_training(view)[0] == found_in_training(other)[0]).all()


def test_no_corpus_of_training_holds_another_item() -> None:
    """Everybody's last two items are new ones that nobody had before."""
    world = toys.conveyor()
    strange = replace(
        moved(world, lambda items, user: np.array([31, 32])),
        item_keys=np.array([f"i{i:05d}" for i in range(1, 33)]),
        item_text=(*world.item_text, "strange", "stranger"),
        item_fields={},
    )
    view = protocols.load("loo").split(strange).train
    assert np.isin(31, view.valid.targets.items)
    paper = paper_corpora(view)
    for windows in (corpus_windows(view), training_queries(view).windows, paper.train, paper.valid):
        assert not np.isin([31, 32], windows.items).any()
    assert np.isin([31, 32], paper.test.items).tolist() == [True, False]


def test_nobody_is_his_own_neighbour() -> None:
    view = protocols.load("loo").split(toys.conveyor()).train
    merged, own = found_in_training(view)
    assert (merged != NOBODY).any(1).all()
    assert not (merged == own[:, None]).any()


def test_without_exclusion_people_find_themselves() -> None:
    """So that the test above can fail."""
    view = protocols.load("loo").split(toys.conveyor()).train
    counts, corpus = term_counts(view.item_text), corpus_windows(view)
    documents = pseudo_documents(counts, corpus)
    rows = BM25(documents).top(documents, 10, np.full(len(corpus), NOBODY)).rows
    assert (rows == np.arange(len(corpus))[:, None]).any()


def test_users_without_validation_keep_their_training_items() -> None:
    view = toys.four_users()
    asked = Questions(toys.cases([[1, 2]], np.arange(6)), Sequences.from_rows([[5]]))
    view = replace(view, valid=asked)  # user 1 alone is asked
    assert [row.tolist() for row in paper_corpora(view).test] == [[1, 2, 3, 5], [1, 2], [2, 1], [1, 3, 4]]
