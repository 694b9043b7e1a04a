"""Seconds and peak memory of 1,000,000 interactions on their way to scores; run as ``python -m tests.speed.data``.

Made-up interactions (heavy-tailed users and items, items that appear over time) are prepared, loaded, split under
loo and warmcold, and random lists for all users are evaluated in every setting. Target: all of it in under 60 s, and
never above 4 GiB. Each process of the table is a fresh one, so that no peak is inherited.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

import protocols
from benchmark import datasets
from benchmark.datasets.prepare import prepare
from benchmark.evaluate import evaluate, evaluate_setting
from benchmark.run import peak_rss
from benchmark.scoring import per_target
from benchmark.types import Cases, Ranking, Spend

INTERACTIONS, USERS, ITEMS, YEARS = 1_000_000, 80_000, 40_000, 10
SECONDS, GIBIBYTES = 60, 4
Line = tuple[str, str, float, float, float]
"""Process, stage, seconds, seconds of the processor, peak GiB of the process so far."""


def make_raw(folder: Path, _: Callable[[Line], None]) -> None:
    """Atomic files of distinct (user, item) pairs; an item is bought only once it exists."""
    rng = np.random.default_rng(0)
    weights = rng.lognormal(0, 1, USERS)
    popularity = rng.permutation((np.arange(ITEMS) + 20.0) ** -0.8)
    drawn = INTERACTIONS * 5 // 4  # some pairs repeat
    users = rng.choice(USERS, drawn, p=weights / weights.sum())
    items = rng.choice(ITEMS, drawn, p=popularity / popularity.sum())
    pairs = np.unique(users * ITEMS + items)
    users, items = np.divmod(rng.permutation(pairs)[:INTERACTIONS], ITEMS)
    span = YEARS * 365 * 86_400
    times = np.maximum(rng.random(len(users)) * span, (rng.random(ITEMS) * span)[items]).astype(np.int64)
    folder.mkdir()
    rows = {"user_id:token": users, "item_id:token": items, "timestamp:float": times + 1_000_000_000}
    pd.DataFrame(rows).to_csv(folder / "raw.inter", sep="\t", index=False)
    names = np.arange(ITEMS)
    described = {"item_id:token": names, "title:token_seq": [f"thing number {i}" for i in names]}
    described["categories:token_seq"] = [f"Things, Kind {i % 50}" for i in names]
    pd.DataFrame(described).to_csv(folder / "raw.item", sep="\t", index=False)
    (folder / "dataset.json").write_text(json.dumps({"name": "raw"}))


def do_prepare(root: Path, say: Callable[[Line], None]) -> None:
    with measured("prepare", "prepare", say):
        prepare(root / "raw", root / "ready", "ready", 5)


def do_protocol(name: str, root: Path, say: Callable[[Line], None]) -> None:
    """What a job does apart from its method."""
    with measured(name, "load", say):
        dataset = datasets.load(str(root / "ready"))
    protocol = protocols.load(name)
    with measured(name, "split", say):
        split = protocol.split(dataset)
    every = np.arange(1, dataset.n_items + 1) if split.candidates is None else split.candidates
    ranking = random_lists(split.test.cases, every)
    asked = {n: s for n, s in split.settings.items() if s.candidates is not None}
    again = {n: random_lists(s.questions.cases, s.candidates) for n, s in asked.items() if s.candidates is not None}
    with measured(name, f"evaluate {len(split.test):,} users", say):
        evaluate(ranking, split.test, split, protocol.rules, dataset.n_items)
        for setting, one in split.settings.items():
            lists = again.get(setting, ranking)
            evaluate_setting(lists, setting, one, protocol.rules, dataset.n_items, len(split.test))
        per_target(ranking, again, split)


def random_lists(cases: Cases, candidates: np.ndarray, k: int = 20) -> Ranking:
    """Twenty neighbours on a ring of the candidates, from anywhere."""
    starts = np.random.default_rng(0).integers(0, len(candidates), len(cases))
    items = candidates[(starts[:, None] + np.arange(k)) % len(candidates)].astype(np.int32)
    scores = np.tile(-np.arange(k, dtype=np.float32), (len(cases), 1))
    return Ranking(cases.users, items, scores, Spend("scores", len(candidates)))


@contextmanager
def measured(process: str, stage: str, say: Callable[[Line], None]) -> Iterator[None]:
    start, worked = time.perf_counter(), time.process_time()
    yield
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    say((process, stage, seconds, worked, peak_rss() / 2**30))


def in_own_process(work: Callable[..., None], *arguments: object) -> list[Line]:
    """The lines that ``work`` says. Raises RuntimeError when it dies."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(*arguments, queue.put))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the process ended with exit code {process.exitcode}")
    lines = []
    while not queue.empty():
        lines.append(queue.get())
    return lines


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        in_own_process(make_raw, root / "raw")  # a process starts with the peak of the one that started it
        lines = in_own_process(do_prepare, root)
        for protocol in ("loo", "warmcold"):
            lines += in_own_process(do_protocol, protocol, root)
    print(f"{'process':10} {'stage':24} {'seconds':>8} {'cpu':>8} {'peak GiB':>9}")
    for process, stage, seconds, worked, peak in lines:
        print(f"{process:10} {stage:24} {seconds:8.1f} {worked:8.1f} {peak:9.2f}")
    total, worked, highest = sum(one[2] for one in lines), sum(one[3] for one in lines), max(one[4] for one in lines)
    print(f"together {total:.1f} s, {worked:.1f} s of the processor (target {SECONDS} s): {verdict(total < SECONDS)}")
    print(f"highest peak {highest:.2f} GiB (target {GIBIBYTES} GiB): {verdict(highest < GIBIBYTES)}")


def verdict(met: bool) -> str:
    return "met" if met else "missed"


if __name__ == "__main__":
    main()
