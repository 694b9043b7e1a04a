"""BM25 against rank_bm25, score by score and place by place, and the documents it reads."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi
from scipy import sparse

import protocols
from benchmark import datasets
from benchmark.types import Sequences
from methods.blocks import bm25
from methods.blocks.bm25 import BM25, item_counts, pseudo_documents, term_counts, words
from methods.blocks.nearest import NOBODY

TITLES = ("", "Red Soap", "Red soap, for men!", "Blue comb", "", "red RED red", "A soap-dish (blue)", "For two-in-one")
WORLD = Sequences.from_rows([[1, 2], [3], [4], [5, 5, 6], [7, 3, 2], [], [1, 2], [6]])
NONE = np.full(len(WORLD), NOBODY)


def expected(corpus: list[list[str]], queries: list[list[str]], k: int, exclude: np.ndarray) -> tuple:
    """rank_bm25's scores; its order where they differ as float32, and the lower row where they do not."""
    oracle = BM25Okapi(corpus)
    rows, scores = np.full((len(queries), k), NOBODY), np.full((len(queries), k), -np.inf)
    for q, query in enumerate(queries):
        known = oracle.get_scores(query)
        order = np.lexsort((np.arange(len(corpus)), -known.astype(np.float32)))
        found = [row for row in order if known[row] > 0 and row != exclude[q]][:k]
        rows[q, : len(found)], scores[q, : len(found)] = found, known[found]
    return rows, scores


def tokens(windows: Sequences, texts: tuple[str, ...] | list[str]) -> list[list[str]]:
    return [words(" ".join(texts[item] for item in window)) for window in windows]


def check(texts: tuple[str, ...] | list[str], windows: Sequences, queries: Sequences, k: int, own: np.ndarray) -> None:
    """Both ways to ask, by terms and by parts, against the oracle."""
    counts = term_counts(texts)
    index = BM25(pseudo_documents(counts, windows))
    rows, scores = expected(tokens(windows, texts), tokens(queries, texts), k, own)
    for found in (
        index.top(pseudo_documents(counts, queries), k, own),
        index.top(item_counts(queries, len(texts) - 1), k, own, parts=counts),
    ):
        np.testing.assert_allclose(found.scores, scores, rtol=1e-6)
        assert (found.rows == rows).all()


def made_up(users: int, seed: int = 0) -> tuple[list[str], Sequences]:
    """Texts of words by Zipf's law, some of them empty, and users with 0 to 19 items, some of them twins."""
    rng = np.random.default_rng(seed)
    texts = [""] + [" ".join(f"w{w}" for w in rng.zipf(1.3, rng.integers(0, 15)).clip(max=300)) for _ in range(200)]
    rows = [rng.integers(1, 201, rng.integers(0, 20)) for _ in range(users)]
    rows[users // 2 :: 9] = rows[: len(rows[users // 2 :: 9])]
    return texts, Sequences.from_rows(rows)


def test_order_and_scores_are_those_of_rank_bm25() -> None:
    texts, windows = made_up(330)
    asked = np.arange(0, 330, 5)
    check(texts, windows, windows.take(asked), 50, asked)


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, windows = made_up(60)
    own = np.arange(len(windows))[::-1].copy()
    for documents in (1, 7, 59):
        counts = term_counts(texts)
        monkeypatch.setattr(bm25, "BLOCK_BYTES", 8 * documents * sum(counts.shape))
        check(texts, windows, windows, 5, own)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(1, len(TITLES) - 1), max_size=4), min_size=1, max_size=7),
    asked=st.lists(st.lists(st.integers(1, len(TITLES) - 1), max_size=4), min_size=1, max_size=3),
    k=st.integers(1, 9),
)
def test_tiny_corpora(rows: list[list[int]], asked: list[list[int]], k: int) -> None:
    """Few documents: negative idf of many terms, a negative mean idf, scores of 0 and below, k > documents."""
    if not any(TITLES[item] for row in rows for item in row):
        return  # rank_bm25 divides by zero
    check(TITLES, Sequences.from_rows(rows), Sequences.from_rows(asked), k, np.full(len(asked), NOBODY))


def test_by_hand() -> None:
    """Three documents of one, two and one words; "b" is in one of them: idf ln 2.5 - ln 1.5."""
    documents = term_counts(["a", "b c", "d"])
    found = BM25(documents).top(documents[[1], :], 3, np.array([NOBODY]))
    length = 1.5 * (0.25 + 0.75 * 2 / (4 / 3))
    assert found.rows.tolist() == [[1, NOBODY, NOBODY]]
    assert found.scores[0, 0] == pytest.approx(2 * math.log(2.5 / 1.5) * 2.5 / (1 + length), rel=1e-6)


def test_a_common_term_weighs_a_quarter_of_the_mean_idf() -> None:
    documents = term_counts(["the a", "the b", "the c", "the d", "e"])
    rare, common = math.log(4.5 / 1.5), math.log(1.5 / 4.5)
    floor = 0.25 * (5 * rare + common) / 6
    weight = BM25(documents, b=0.0).weights[[0], :].toarray()[0]  # b = 0: a term that stands once weighs its idf
    np.testing.assert_allclose(weight[:2], [floor, rare])


def test_every_repetition_of_a_query_term_counts() -> None:
    counts = term_counts(["soap", "soap comb", "comb", "dish", "towel"])
    index = BM25(counts)
    once = index.top(counts[[0], :], 2, np.array([NOBODY]))
    thrice = index.top(counts[[0], :] * 3, 2, np.array([NOBODY]))
    np.testing.assert_allclose(thrice.scores, 3 * once.scores, rtol=1e-6)
    assert (thrice.rows == once.rows).all()


def test_words() -> None:
    assert words("L'Oréal  2-in-1\tShampoo & Conditioner, 13.5 oz_") == [
        "loréal", "2in1", "shampoo", "conditioner", "135", "oz",
    ]  # fmt: skip
    assert words("?! ...") == []


def test_a_document_is_the_texts_of_its_window() -> None:
    counts = term_counts(TITLES)
    documents = pseudo_documents(counts, WORLD).toarray()
    joined = term_counts([" ".join(TITLES)] + [" ".join(TITLES[item] for item in row) for row in WORLD])
    assert (documents == joined.toarray()[1:]).all()
    assert documents[3].max() == 6  # "red" three times in each of two purchases
    assert not documents[2].any() and not documents[5].any()
    assert not counts[[0], :].nnz


def test_the_windows_are_left_in_their_order() -> None:
    windows = Sequences.from_rows([[7, 3, 3, 1]])
    pseudo_documents(term_counts(TITLES), windows)
    assert windows.items.tolist() == [7, 3, 3, 1]


def test_nothing_is_found_where_nothing_is_asked_or_written() -> None:
    counts = term_counts(TITLES)
    index = BM25(pseudo_documents(counts, WORLD))
    found = index.top(pseudo_documents(counts, WORLD), 20, NONE)
    assert (found.rows[[2, 5]] == NOBODY).all() and np.isneginf(found.scores[[2, 5]]).all()
    assert not np.isin([2, 5], found.rows).any()
    assert np.isneginf(found.scores[found.rows == NOBODY]).all() and (found.scores[found.rows != NOBODY] > 0).all()


@pytest.mark.parametrize("documents", [0, 3])
def test_a_corpus_without_a_word(documents: int) -> None:
    empty = sparse.csr_array((documents, 4))
    found = BM25(empty).top(sparse.csr_array(np.ones((2, 4))), 3, np.array([NOBODY, 0]))
    assert (found.rows == NOBODY).all() and np.isneginf(found.scores).all()
    assert term_counts(["", "..."]).shape == (2, 0)
    assert BM25(term_counts(["", "..."])).top(term_counts(["", ""]), 1, np.array([0, 1])).rows.tolist() == [[-1], [-1]]


def test_without_queries_there_are_no_lists() -> None:
    counts = term_counts(TITLES)
    found = BM25(counts).top(counts[:0], 3, np.empty(0, np.int64))
    assert found.rows.shape == found.scores.shape == (0, 3)


def test_progress_rises_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, windows = made_up(40)
    counts = term_counts(texts)
    monkeypatch.setattr(bm25, "BLOCK_BYTES", 8 * 9 * counts.shape[1])
    told: list[float] = []
    totals: set[float] = set()
    queries = pseudo_documents(counts, windows)
    BM25(queries).top(queries, 3, np.arange(40), lambda done, total: (told.append(done), totals.add(total)))
    assert told == sorted(told) and len(told) == 5 and {told[-1]} == totals


@pytest.mark.slow
@pytest.mark.skipif("GENREC_DATA" not in os.environ, reason="needs the prepared Beauty files: set $GENREC_DATA")
def test_beauty_has_the_order_of_rank_bm25() -> None:
    """All 22,363 users are documents; rank_bm25 takes seconds for each of the two who ask."""
    view = protocols.load("loo").split(datasets.load("beauty")).train
    texts, windows = list(view.item_text), view.sequences.tail(20)
    counts = term_counts(texts)
    asked = np.argsort(windows.lengths, kind="stable")[[0, len(windows) // 2]]
    queries = windows.take(asked)
    found = BM25(pseudo_documents(counts, windows)).top(item_counts(queries, view.n_items), 50, asked, parts=counts)
    rows, scores = expected(tokens(windows, texts), tokens(queries, texts), 50, asked)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)
    assert (found.rows == rows).all()
