"""A method fitted twice, with the test answers as they are and handed round: does anything of it know the answers?

What ``fit`` is given is the same both times, so whatever differs came another way. And of the answers handed round
nobody can know more than which items are frequent, so a list that finds more of them than of any other permutation
was made by somebody who saw them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import records
from benchmark.files import read_sealed
from benchmark.metrics import PER_USER, parse
from benchmark.types import Questions, Sequences
from methods.audits.leakage_checks import FAIL, Check, judged, not_applicable
from methods.audits.leakage_leaves import artifacts, different
from methods.audits.leakage_static import NUMBERING, Subject, numbering
from methods.audits.leakage_world import BY_USER, SEED, handed_round, permuted
from methods.blocks.semantic_ids import number_prefixes
from methods.blocks.training import read_model

METRIC = "ndcg@10"
DRAWS = 499
"""Other permutations of the answers that the scores are held against; an honest method beats them all once in 500."""
DEVIATIONS = 4.0
"""Standard deviations of those scores that a leak lies above their mean as well, since a page holds many checks."""
ROUNDING = 1e-9
"""Of a mean: a list that is the same for all users has the same score on every permutation."""
SHOWN = 3
"""Names of differences told in a sentence."""


@dataclass(frozen=True)
class Left:
    """What a world has left in its folder, see ``leakage_world.live``."""

    folder: Path

    @cached_property
    def told(self) -> dict[str, Any]:
        return json.loads((self.folder / "told.json").read_bytes())

    @cached_property
    def report(self) -> dict[str, Any]:
        return json.loads(self.told["report"])

    @cached_property
    def artifacts(self) -> dict[str, Any]:
        return artifacts(self.folder / "artifacts")

    @cached_property
    def model(self) -> dict[str, Any] | None:
        """The saved model, None where the method saves none."""
        path = self.folder / "model.ckpt"
        if not path.exists():
            return None
        return read_model(path, "cpu") if read_sealed(path) is not None else {"file": path.read_bytes().hex()}

    @cached_property
    def codes(self) -> np.ndarray | None:
        path = self.folder / "codes.npy"
        return np.load(path) if path.exists() else None

    def ranking(self, name: str = "") -> dict[str, np.ndarray]:
        with np.load(self.folder / records.ranking_file(name)) as stored:
            return {key: stored[key] for key in stored.files}

    @property
    def rankings(self) -> list[str]:
        """Names of the settings ranked, "" for the test."""
        found = (path.stem.removeprefix("ranking").removeprefix(".") for path in self.folder.glob("ranking*.npz"))
        return sorted(set(found) - {BY_USER})


@dataclass(frozen=True)
class Worlds:
    """A subject as it is, and with its test answers handed round."""

    plain: Subject
    moved: Subject

    @classmethod
    def of(cls, subject: Subject) -> Worlds:
        """Raises ValueError when the answers cannot be handed round."""
        return cls(subject, Subject.of(permuted(subject.dataset, subject.split), subject.protocol))

    @cached_property
    def null(self) -> list[np.ndarray]:
        """Other ways to hand the answers of the moved world round, (T,) each."""
        test, n_items = self.plain.split.test, self.plain.dataset.n_items
        pool = self.moved.split.test.targets.items
        return [handed_round(test, pool, n_items, SEED + 1 + draw) for draw in range(DRAWS)]


def checks(left: Left, right: Left, again: Callable[[], Left], worlds: Worlds) -> list[Check]:
    """Every dynamic check of a method, in the order of the page.

    ``left`` was left by the plain world, ``right`` by the one with the answers handed round; ``again()`` makes
    ``left`` anew, to tell a leak from a fit that does not repeat itself.
    """
    test = worlds.moved.split.test
    return [
        data_read(left, right),
        *_alike(left, right, again, worlds.plain),
        ids_of_method(right, worlds.moved),
        scores("scores on permuted answers", right.ranking(), test, worlds.null),
        scores("answers tied to user ids", right.ranking(BY_USER), test, worlds.null),
    ]


def data_read(left: Left, right: Left) -> Check:
    """Files of the dataset; and files of elsewhere, in which answers may stand that no world has moved."""
    name = "data read past the view"
    data, elsewhere = (sorted({*left.told[kind], *right.told[kind]}) for kind in ("data", "elsewhere"))
    numbers = {"files": len(data), "elsewhere": len(elsewhere)}
    if data:
        return judged(name, True, f"fit and recommend read {', '.join(data)}", **numbers)
    says = "fit and recommend read no file of the dataset"
    if not elsewhere:
        return judged(name, False, says, **numbers)
    files = f"{len(elsewhere):,} file{'s' * (len(elsewhere) > 1)} of elsewhere, which could hold answers"
    return not_applicable(name, f"{says}, but {files}{_some([Path(path).name for path in elsewhere])}", **numbers)


def _alike(left: Left, right: Left, again: Callable[[], Left], subject: Subject) -> list[Check]:
    """Artifacts, cold rows of artifacts, training report, model and rankings of both worlds."""
    compared = [
        _artifacts_alike,
        lambda a, b: cold_rows(a, b, subject.split.train.item_counts),
        _reports_alike,
        _models_alike,
        _rankings_alike,
    ]
    found = [compare(left, right) for compare in compared]
    if not any(_fails(check) for check in found):
        return found
    control = again()
    repeats = [not _fails(compare(left, control)) for compare in compared]
    why = "fit does not repeat itself bit for bit on the same data, so a difference says nothing"
    return [
        check if same or not _fails(check) else not_applicable(check.name, why)
        for check, same in zip(found, repeats, strict=True)
    ]


def _fails(check: Check) -> bool:
    return check.verdict == FAIL


def _artifacts_alike(left: Left, right: Left) -> Check:
    name = "answers in artifacts"
    if not left.artifacts and not right.artifacts:
        return not_applicable(name, "fit keeps no artifacts")
    differ = different(left.artifacts, right.artifacts)
    files = sorted({one.partition(".npz")[0] for one in differ})
    says = f"{len(files):,} of {len(left.artifacts):,} artifacts change with the test answers{_some(files)}"
    return judged(name, bool(differ), says, artifacts=len(left.artifacts), different=len(files))


def cold_rows(left: Left, right: Left, counts: np.ndarray) -> Check:
    """Rows of artifacts that belong to items without a training interaction; ``counts`` (N + 1,) are theirs."""
    name, cold = "cold items in artifacts", np.flatnonzero(counts[1:] == 0) + 1
    tables = {
        f"{file}/{key}": (array, _array(right.artifacts, file, key))
        for file, arrays in left.artifacts.items()
        if isinstance(arrays, dict)
        for key, array in arrays.items()
        if array.ndim and len(array) == len(counts)
    }
    if not tables or not len(cold):
        return not_applicable(name, "no artifact has a row per item" if len(cold) else "no item is cold")
    moved = {
        key: int(_differs(a[cold], b[cold]).reshape(len(cold), -1).any(1).sum())
        for key, (a, b) in tables.items()
        if b is not None and a.shape == b.shape
    }
    worst = max(moved.values(), default=0)
    says = f"the rows of {worst:,} of {len(cold):,} items without training interaction change with the test answers"
    return judged(name, worst > 0, says + _some([k for k, n in moved.items() if n]), rows=worst, cold_items=len(cold))


def _differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Entry by entry; two that are no number are the same."""
    return (one != other) & ((one == one) | (other == other))


def _array(found: dict[str, Any], file: str, key: str) -> np.ndarray | None:
    arrays = found.get(file)
    return arrays.get(key) if isinstance(arrays, dict) else None


def _reports_alike(left: Left, right: Left) -> Check:
    name = "selection on test"
    if not left.report and not right.report:
        return not_applicable(name, "fit reports no training")
    differ = different(left.report, right.report)
    kinds = sorted({one.split("/")[0] for one in differ})
    says = f"{len(differ):,} values of the training report (scores, chosen epoch) change with the test answers"
    return judged(name, bool(differ), says + _some(kinds), different=len(differ))


def _models_alike(left: Left, right: Left) -> Check:
    name = "answers in the saved model"
    if left.model is None or right.model is None:
        return not_applicable(name, "the method saves no model")
    differ = different(left.model, right.model)
    says = f"{len(differ):,} values of the saved model change with the test answers{_some(differ)}"
    return judged(name, bool(differ), says, different=len(differ))


def _rankings_alike(left: Left, right: Left) -> Check:
    """Of the users that both worlds ask in a setting."""
    moved = asked = 0
    for name in sorted({*left.rankings} & {*right.rankings}):
        one, other = left.ranking(name), right.ranking(name)
        _, a, b = np.intersect1d(one["users"], other["users"], return_indices=True)
        same = (one["items"][a] == other["items"][b]).all(1) & (one["scores"][a] == other["scores"][b]).all(1)
        moved, asked = moved + int((~same).sum()), asked + len(same)
    says = f"{moved:,} of {asked:,} lists change with the test answers"
    return judged("answers in rankings", moved > 0, says, lists=asked, different=moved)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f": {', '.join(names[:SHOWN])}{more}" if names else ""


def ids_of_method(right: Left, moved: Subject) -> Check:
    """The items' identifiers, numbered in lexicographic order, beside the sequences; see ``static.numbering``.

    Of the world with the answers handed round: there an answer is not like the item before it, so identifiers made
    of texts, or along the training sequences, do not lie in a row.
    """
    if right.codes is None:
        return not_applicable(NUMBERING, "the method makes no identifiers of items")
    codes = right.codes if right.codes.ndim > 1 else right.codes[:, None]
    numbers = np.full(len(codes), -1, np.int64)
    numbers[1:] = number_prefixes(codes[1:])[:, -1]
    return numbering(moved, numbers)


def scores(name: str, ranking: dict[str, np.ndarray], moved: Questions, null: Sequence[np.ndarray]) -> Check:
    """The lists' score on the answers of their world, beside that on other permutations of the same answers.

    Lists made without sight of the answers do not know which permutation is theirs: they beat all others as often as
    any one of them does, whatever the lists are. How often an item is an answer they may know, and every permutation
    has that.
    """
    mine = float(per_user(ranking, moved).mean())
    others = np.array([_score(ranking, moved, answers) for answers in null])
    p = (1 + int((others >= mine).sum())) / (1 + len(others))
    says = (
        f"{METRIC} {mine:.4f} on the answers handed round that fit could find, {others.mean():.4f} on average and "
        f"{others.max():.4f} at most on {len(others)} other ways to hand them round (p = {p:.3f})"
    )
    numbers = {"score": mine, "mean": float(others.mean()), "most": float(others.max()), "p": p}
    far = mine > others.mean() + DEVIATIONS * others.std() + ROUNDING
    return judged(name, bool(far and mine > others.max()), says, **numbers)


def per_user(ranking: dict[str, np.ndarray], questions: Questions) -> np.ndarray:
    """(U,) the metric of lists that stand in the order of the questions."""
    assert np.array_equal(ranking["users"], questions.cases.users), "lists of other users"
    kind, k = parse(METRIC)
    targets = questions.targets
    found = ranking["items"][targets.row_of, :k] == targets.items[:, None]  # (T, k)
    hits = np.logical_or.reduceat(found, targets.offsets[:-1])  # (U, k); whoever is asked has an answer
    return PER_USER[kind](hits, targets.lengths, k)


def _score(ranking: dict[str, np.ndarray], questions: Questions, answers: np.ndarray) -> float:
    targets = Sequences(answers, questions.targets.offsets)
    return float(per_user(ranking, Questions(questions.cases, targets)).mean())
