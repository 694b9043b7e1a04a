"""BM25 of every user against all users, per query, against rank_bm25 and bm25s; run as ``python -m tests.speed.bm25``.

Everybody's document (the texts of his last 20 training items) asks for the 50 best of all documents. Ours answers all
of them, rank_bm25 and bm25s a sample; indexing is told apart. One thread each, in seconds of the processor, so that
other work on the machine does not count. bm25s runs with every backend that is installed, the fastest counts; its
``lucene`` idf is not rank_bm25's, which only ours and rank_bm25 share. Texts are Beauty's where $GENREC_DATA is set,
else Zipf-distributed words (``--texts zipf``). Needs ``pip install bm25s`` (and numba for its second backend). The
program fails below 500 times rank_bm25 or below bm25s.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rank_bm25 import BM25Okapi

import protocols
from benchmark import datasets
from benchmark.run import peak_rss
from benchmark.types import Sequences
from methods.blocks.bm25 import BM25, item_counts, pseudo_documents, term_counts, words

K = 50
RANK_BM25_GATE, BM25S_GATE, BM25S_TARGET = 500, 1, 2


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    texts, windows = beauty() if args.texts == "beauty" else zipf()
    tokens = [words(" ".join(texts[item] for item in window)) for window in windows]
    lengths = [len(one) for one in tokens]
    print(f"{args.texts}: {len(windows):,} documents of {np.mean(lengths):.0f} words, each asks for the {K} best")
    sample = np.random.default_rng(0).permutation(len(windows))
    sides = {"ours": ask_ours(texts, windows)}
    sides["rank_bm25"] = ask_rank_bm25(tokens, sample[: args.rank_bm25_queries])
    for backend in backends():
        sides[f"bm25s, {backend}"] = ask_bm25s(tokens, sample[: args.bm25s_queries], backend)
    print(f"{'':16} {'ms a query':>11} {'all, s':>9}")
    for name, milliseconds in sides.items():
        print(f"{name:16} {milliseconds:11.3f} {milliseconds * len(windows) / 1000:9,.0f}")
    slowly = sides["rank_bm25"] / sides["ours"]
    quickly = min(cost for name, cost in sides.items() if name.startswith("bm25s")) / sides["ours"]
    print(f"rank_bm25 / ours {slowly:,.0f} (gate {RANK_BM25_GATE})")
    print(f"bm25s / ours {quickly:.2f} (gate {BM25S_GATE}, target {BM25S_TARGET})")
    print(f"peak memory of all {peak_rss() / 2**20:,.0f} MiB")
    if slowly < RANK_BM25_GATE or quickly < BM25S_GATE:
        sys.exit("missed")


def ask_ours(texts: Sequence[str], windows: Sequences) -> float:
    counts = term_counts(texts)
    index = measured("ours: index", lambda: BM25(pseudo_documents(counts, windows)))[0]
    own = np.full(len(windows), -1)
    queries = item_counts(windows, len(texts) - 1)
    _, seconds = measured("ours: all queries", lambda: index.top(queries, K, own, parts=counts))
    print(f"peak memory so far {peak_rss() / 2**20:,.0f} MiB")
    return 1000 * seconds / len(windows)


def ask_rank_bm25(tokens: list[list[str]], sample: np.ndarray) -> float:
    index = measured("rank_bm25: index", lambda: BM25Okapi(tokens))[0]
    _, seconds = measured(
        f"rank_bm25: {len(sample)} queries", lambda: [np.argsort(-index.get_scores(tokens[row]))[:K] for row in sample]
    )
    return 1000 * seconds / len(sample)


def ask_bm25s(tokens: list[list[str]], sample: np.ndarray, backend: str) -> float:
    import bm25s

    number_of = {word: number for number, word in enumerate(sorted({word for one in tokens for word in one}))}
    numbers = [[number_of[word] for word in one] for one in tokens]
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene", backend=backend)
    documents = bm25s.tokenization.Tokenized(ids=numbers, vocab=number_of)
    measured(f"bm25s, {backend}: index", lambda: index.index(documents, show_progress=False))
    asked = [numbers[row] for row in sample]

    def ask(some: list[list[int]]) -> None:
        index.retrieve(some, k=K, sorted=True, show_progress=False, n_threads=0, backend_selection=backend)

    ask(asked[:2])  # numba compiles
    _, seconds = measured(f"bm25s, {backend}: {len(asked)} queries", lambda: ask(asked))
    return 1000 * seconds / len(asked)


def backends() -> list[str]:
    if importlib.util.find_spec("bm25s") is None:
        sys.exit("bm25s is not installed, and it is one of the sides; install it with: pip install bm25s")
    return ["numpy", "numba"] if importlib.util.find_spec("numba") else ["numpy"]


def measured(name: str, work: Callable[[], object]) -> tuple:
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    print(f"{name}: {seconds:.2f} s", flush=True)
    return result, seconds


def beauty() -> tuple[Sequence[str], Sequences]:
    view = protocols.load("loo").split(datasets.load("beauty")).train
    return view.item_text, view.sequences.tail(20)


def zipf(users: int = 22_363, items: int = 12_101) -> tuple[Sequence[str], Sequences]:
    """Titles of 15 words on average and 7 items a user."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 26, items)
    drawn = np.array([f"w{word}" for word in rng.zipf(1.2, lengths.sum()).clip(max=30_000)], object)
    titles = [" ".join(some) for some in np.split(drawn, np.cumsum(lengths)[:-1])]
    sizes = 3 + rng.geometric(0.25, users).clip(max=17)
    return ["", *titles], Sequences.from_lengths(rng.integers(1, items + 1, sizes.sum()), sizes)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "beauty" if "GENREC_DATA" in os.environ else "zipf"
    parser.add_argument("--texts", choices=("beauty", "zipf"), default=default)
    parser.add_argument("--rank-bm25-queries", type=int, default=5)
    parser.add_argument("--bm25s-queries", type=int, default=500)
    return parser.parse_args()


if __name__ == "__main__":
    main()
