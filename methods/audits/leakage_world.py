"""Two worlds that differ in nothing but the answers of the test, and what a method makes of each.

``permuted`` hands the test answers round among the users; ``live`` makes and fits a method in such a world, where all
that reads the data (the suite's own loader, files below ``$GENREC_DATA``) finds the data of that world.
"""

from __future__ import annotations

import hashlib
import json
import os
import site
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark import records
from benchmark.datasets import assembly, atomic, demo, folders
from benchmark.files import json_bytes, write_atomically
from benchmark.job import Job, Loaders
from benchmark.method import Method
from benchmark.protocol import Protocol
from benchmark.run import Run
from benchmark.scoring import ask
from benchmark.types import Cases, Dataset, Questions, Sequences, Split, TrainingView

SEED = 20_251_107
"""Draws the permutation that a world is made of; others are drawn from the seeds after it."""
ROUNDS = 1000
MOVED = 10
"""One in so many answers becomes another item, so that how often an item is asked for moves too."""
LATEST = 30
"""Days that an answer may be given later, so that when a user is asked moves too."""
DAY = 86_400.0
BY_USER = "by user"
"""The ranking of questions with the history of somebody else."""
CODE = (".py", ".pyc", ".pyi", ".so")
MACHINE = ("/dev", "/etc", "/lib", "/lib64", "/Library", "/proc", "/run", "/sys", "/System", "/usr")


def permuted(dataset: Dataset, split: Split, seed: int = SEED) -> Dataset:
    """The dataset with the test answers of ``split`` handed round; what ``fit`` may see of it stays the same.

    Some answers are exchanged for others as well, and they are given on other days: then a count over all
    interactions, or the time of a question, is not the same either.
    Raises ValueError when the answers cannot be told from repeats of them, or cannot be handed round.
    """
    pairs = dataset.users.astype(np.int64) * (dataset.n_items + 1) + dataset.items
    users = split.test.cases.users[split.test.targets.row_of]
    rows = np.flatnonzero(np.isin(pairs, users.astype(np.int64) * (dataset.n_items + 1) + split.test.targets.items))
    if len(rows) != len(users):
        raise ValueError(f"{dataset.name} repeats interactions that are test answers; prepare it without repeats first")
    order = np.argsort(pairs[rows])
    by_user = np.lexsort((split.test.targets.items, users))  # the same answers in the same order
    answers = np.empty(len(rows), np.int32)
    pool = _otherwise_often(split, seed)
    answers[order] = handed_round(split.test, pool, dataset.n_items, seed)[by_user]
    items, times = dataset.items.copy(), dataset.timestamps.copy()
    items[rows] = answers
    if not dataset.order_only:
        times[rows] += _delays(dataset.users[rows], times[rows], seed)
    return replace(dataset, items=items, timestamps=times)


def _otherwise_often(split: Split, seed: int) -> np.ndarray:
    """(T,) the answers, some of which have become others: the same items, but not each as often as before.

    An item that is nothing but an answer stays one, or it would be no candidate any more.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    own, view = split.test.targets.items, split.train
    items, first = np.unique(own, return_index=True)
    lone = first[~np.isin(items, np.concatenate([view.sequences.items, view.valid.targets.items]))]
    free = np.setdiff1d(np.arange(len(own)), lone)
    moved = rng.choice(free, -(-len(free) // MOVED), replace=False)
    pool = own.copy()
    pool[moved] = rng.choice(items, len(moved))
    return pool


def _delays(users: np.ndarray, times: np.ndarray, seed: int) -> np.ndarray:
    """(T,) seconds to add to answers at ``times`` of ``users`` (T,): whole days, the same for all answers of a user.

    The earliest answers stay: a cut in time may be named by them.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    days = rng.integers(1, LATEST, int(users.max()) + 1)
    return np.where(times > times.min(), DAY * days[users], 0.0)


def handed_round(questions: Questions, pool: np.ndarray, n_items: int, seed: int) -> np.ndarray:
    """(T,) the answers of ``pool`` (T,) in another order: nobody gets an own one, one that he had, or one twice.

    Raises ValueError when there is no such permutation to be found.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    row_of = questions.targets.row_of
    stride = n_items + 1
    had = np.sort(
        np.concatenate([rows.row_of * stride + rows.items for rows in (questions.cases.seen, questions.targets)])
    )
    answers = rng.permutation(pool)
    for _ in range(ROUNDS):
        pairs = row_of * stride + answers
        place = np.minimum(np.searchsorted(had, pairs), len(had) - 1)
        order = np.argsort(pairs, kind="stable")
        twice = np.zeros(len(pairs), bool)
        twice[order[1:]] = pairs[order][1:] == pairs[order][:-1]
        wrong = np.flatnonzero((had[place] == pairs) | twice)
        if not len(wrong):
            return answers
        drawn = np.union1d(wrong, rng.integers(0, len(answers), len(wrong)))
        answers[drawn] = answers[rng.permutation(drawn)]
    raise ValueError("the test answers cannot be handed round: too few users or items; take a larger dataset")


def as_tables(dataset: Dataset) -> atomic.Tables:
    """The dataset as its files would tell it."""
    columns = {"user_id": dataset.user_keys[dataset.users - 1], "item_id": dataset.item_keys[dataset.items - 1]}
    columns |= {"timestamp": [repr(float(time)) for time in dataset.timestamps], **dataset.labels}
    types = {name: "token" for name in columns} | {"timestamp": "float"}
    if dataset.presplit is not None:
        columns[assembly.SPLIT], types[assembly.SPLIT] = np.array(atomic.PARTS)[dataset.presplit], "token"
    items = {"item_id": dataset.item_keys, **{name: values[1:] for name, values in dataset.item_fields.items()}}
    types |= {name: "token_seq" for name in dataset.item_fields}
    meta = {**dataset.meta, "name": dataset.name} | ({"order_only": True} if dataset.order_only else {})
    described = pd.DataFrame(items, dtype=object) if dataset.item_fields else None
    return atomic.Tables(dataset.name, pd.DataFrame(columns, dtype=object), described, types, meta)


class _Watch:
    """The files that Python opens while it is on. An audit hook stays for the life of a process, so there is one."""

    def __init__(self) -> None:
        self.opened: dict[Path, bool] | None = None
        self.hooked = False

    def start(self) -> dict[Path, bool]:
        """Files opened from now on, and whether the first time was to write."""
        if not self.hooked:
            sys.addaudithook(self._see)
            self.hooked = True
        self.opened = {}
        return self.opened

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if self.opened is not None and event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            path = Path(os.path.realpath(os.fsdecode(args[0])))
            self.opened.setdefault(path, bool(args[2] & (os.O_WRONLY | os.O_RDWR)))


_WATCH = _Watch()


@dataclass(frozen=True)
class Noticed:
    """What was read: files of the dataset by name, and others; filled when the world is left."""

    data: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    """Files that neither the world nor the suite, Python or the machine has, by path: nobody knows what is in them."""


@contextmanager
def the_only_data(world: Dataset, folder: Path, original: Path | None, known: Sequence[Path] = ()) -> Iterator[Noticed]:
    """Inside, whoever reads data by the suite or below ``$GENREC_DATA`` finds those of ``world``, and is noticed.

    ``folder`` is the world's; ``original`` holds the real data, and ``known`` what may be read without being told.
    """
    tables, place = as_tables(world), folder / "data" / world.name
    place.mkdir(parents=True)
    atomic.write(tables, place)
    noticed = Noticed()

    def read(*_: Any) -> atomic.Tables:
        noticed.data.add("the suite's loader of datasets")
        return tables

    kept = atomic.read, demo.generate, os.environ.get("GENREC_DATA")
    atomic.read = demo.generate = read  # type: ignore[assignment]
    os.environ["GENREC_DATA"] = str(place.parent)
    opened = _WATCH.start()
    try:
        yield noticed
    finally:
        _WATCH.opened = None
        atomic.read, demo.generate = kept[:2]
        os.environ.pop("GENREC_DATA") if kept[2] is None else os.environ.update(GENREC_DATA=kept[2])
        homes = [*_homes(), *(path.resolve() for path in (folder, *known))]
        for path, written in opened.items():
            if _is_data(path, folder.resolve(), place.resolve(), original and original.resolve()):
                noticed.data.add(path.name)
            elif not (written or path.suffix in CODE or _below(path, homes)) and path.is_file():
                noticed.elsewhere.add(str(path))


def _is_data(path: Path, world: Path, place: Path, original: Path | None) -> bool:
    """Whether a file belongs to the dataset: it lies in one of its folders, or is a table of interactions.

    Nothing else of the world does, even where its folder lies among the original data.
    """
    if path.suffix == ".inter" or path.is_relative_to(place):
        return True
    return original is not None and path.is_relative_to(original) and not path.is_relative_to(world)


def _homes() -> list[Path]:
    """Folders of the suite, of Python, of the machine, and of the caches of downloaded and of compiled models."""
    suite, cache = Path(records.__file__).parents[1], Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    names: list[str | Path | None] = [*MACHINE, sys.prefix, sys.base_prefix, site.getusersitepackages()]
    names += [os.environ.get("HF_HOME"), os.environ.get("HF_HUB_CACHE")]
    names += [cache / "huggingface", cache / "torch", "~/.triton", "~/.nv"]
    names += [suite / package for package in ("benchmark", "leaderboards", "methods", "protocols")]
    compiled = Path(tempfile.gettempdir()).glob("torchinductor_*")
    return [Path(name).expanduser().resolve() for name in [*names, *compiled] if name]


def _below(path: Path, homes: Sequence[Path]) -> bool:
    is_metadata = path.parent.suffix in (".egg-info", ".dist-info")  # of an installed package, beside its code
    return is_metadata or any(path.is_relative_to(home) for home in homes)


def live(job: Job, loaders: Loaders, device: str, folder: Path, is_permuted: bool) -> None:
    """Fit and ask the method of ``job`` in a world; rankings, model, artifacts and report are left in ``folder``."""
    dataset, protocol = loaders.dataset(job.dataset_spec, job.data_dir), loaders.protocol(job.protocol)
    split = protocol.split(dataset)
    seen = view_hash(split.train)
    original = folders.find(dataset.name, job.data_dir) or _folder(job.dataset_spec)
    if is_permuted:
        dataset = permuted(dataset, split)
        split = protocol.split(dataset)
        assert view_hash(split.train) == seen, "the permutation of the test answers shows in what fit may see"
    run = Run(
        seed=job.seed,
        device=device,
        artifacts_dir=folder / "artifacts",
        text_encoder=job.text_encoder or Run.text_encoder,
        language_models=job.language_models,
    )
    models = [path for path in (_folder(job.text_encoder), job.language_models) if path]
    with the_only_data(dataset, folder, original, models) as noticed:
        method = job.method(loaders.method(job.method_spec), run)  # its file and its constructor may read, too
        method.fit(split.train)
        if method.saves:
            method.save(folder / "model.ckpt")
        answered = _answers(method, split, protocol)
    for name, arrays in answered.items():
        np.savez(folder / records.ranking_file(name), **arrays)  # type: ignore[arg-type]
    codes = getattr(getattr(method, "ids", None), "codes", None)
    if codes is not None:
        np.save(folder / "codes.npy", codes)
    report = json.dumps(dict(method.training_report()), sort_keys=True, default=str)  # may hold an infinity
    told = {"report": report, "data": sorted(noticed.data), "elsewhere": sorted(noticed.elsewhere)}
    write_atomically(folder / "told.json", json_bytes(told))


def _folder(spec: str | None) -> Path | None:
    """The folder that a dataset or an encoder was named by, None where it was named otherwise."""
    path = None if spec is None else Path(spec).expanduser()
    return path if path is not None and path.is_dir() else None


def _answers(method: Method, split: Split, protocol: Protocol) -> dict[str, dict[str, np.ndarray]]:
    """The rankings of the test, of its settings, and of users asked with the history of somebody else."""
    ranking, again = ask(method, split, protocol)
    length, budget = protocol.budget.list_length, protocol.budget
    cases = _with_other_histories(split.test.cases)
    swapped = method.recommend(cases, length, candidates=split.candidates, budget=budget)
    rankings = {"": ranking, **again, BY_USER: swapped}
    return {name: {"users": r.users, "items": r.items, "scores": r.scores} for name, r in rankings.items()}


def _with_other_histories(cases: Cases) -> Cases:
    """The same users, each with the history of the one half the way round."""
    other = np.roll(np.arange(len(cases)), len(cases) // 2)
    return Cases(cases.users, cases.histories.take(other), cases.seen.take(other), cases.tie_order)


def view_hash(view: TrainingView) -> str:
    """SHA-256 of all that ``fit`` is given."""
    digest = hashlib.sha256()
    rows: list[Sequences] = [view.sequences, view.valid.cases.histories, view.valid.cases.seen, view.valid.targets]
    arrays = [a for one in rows for a in (one.items, one.offsets)]
    arrays += [view.users, view.valid.cases.users, view.valid.cases.tie_order]
    arrays += [] if view.candidates is None else [view.candidates]
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    fields = {name: list(map(str, values)) for name, values in view.item_fields.items()}
    facts = [view.n_users, view.n_items, view.max_history, view.selection, list(view.item_text), fields]
    digest.update(repr(facts).encode())
    return digest.hexdigest()
