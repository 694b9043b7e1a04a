"""Records -> per-user scores of every method on the same users, in the whole test, its slices and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.records import Record
from leaderboards.compare import bootstrap_interval, mcnemar

RESAMPLES = 10_000
PART_RESAMPLES = 2_000
"""For the many cells of slices and settings."""
SEEN_DROPPED = "seen-dropped"
"""The suffix of metrics of the same lists without seen items; any other suffix names a setting."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class SliceCell:
    """One method in one part of the users, or on one kind of their answers."""

    users: int
    primary: float
    interval: Interval
    recall: float


@dataclass(frozen=True)
class Scores:
    """Per-user scores of every method on the same users."""

    users: int
    primary: dict[str, np.ndarray]  # method -> (U, S)
    recall: dict[str, np.ndarray]  # method -> (U, S)
    slices: dict[str, tuple[list[str], np.ndarray]]  # name -> labels, (U,) codes
    settings: dict[str, Scores]
    """Name -> the scores of the users who are asked there."""

    @classmethod
    def of(cls, records: Sequence[Record], primary: str, recall: str) -> Scores:
        """Raises ValueError when two records asked different users, or sorted them differently into slices."""
        stored: dict[str, list[dict[str, np.ndarray]]] = {}
        first: dict[str, np.ndarray] = {}
        for record in records:
            arrays = record.per_user()
            names = [n for n in arrays if n.startswith(f"{primary}/")]
            frame = {k: v for k, v in arrays.items() if k == "users" or k.startswith("slice:")}
            frame |= {f"asked:{n.partition('/')[2]}": ~np.isnan(arrays[n]) for n in names}
            first = first or frame
            if frame.keys() != first.keys() or any(not np.array_equal(frame[k], first[k]) for k in frame):
                raise ValueError(
                    f"{record.method} (seed {record.seed}) on {record.dataset} was asked other users or slices than "
                    f"{records[0].method}; run both again on the same data"
                )
            wanted = {n: v for n, v in arrays.items() if n.partition("/")[0] in (primary, recall)}
            stored.setdefault(record.method, []).append(wanted)
        labels = records[0].fields["slice_labels"] if records else {}
        slices = {name: (labels[name], first[f"slice:{name}"]) for name in labels}
        asked = {k.partition(":")[2]: rows for k, rows in first.items() if k.startswith("asked:")}
        asked.pop(SEEN_DROPPED, None)
        settings = {}
        for name, rows in asked.items():
            apart = _columns(stored, f"{primary}/{name}", f"{recall}/{name}", rows)
            settings[name] = cls(int(rows.sum()), *apart, {}, {})
        users = len(first.get("users", ()))
        return cls(users, *_columns(stored, primary, recall, slice(None)), slices, settings)

    @property
    def one_target(self) -> bool:
        """Whether every recall is a hit or a miss: then recall@K is hr@K, and McNemar's test applies."""
        return bool(self.recall) and all(np.isin(hits, (0, 1)).all() for hits in self.recall.values())

    def mcnemar(self, method: str, reference: str) -> float | None:
        if method == reference or reference not in self.recall or not self.one_target:
            return None
        ours, theirs = self.recall[method], self.recall[reference]
        return mcnemar(ours[:, 0], theirs[:, 0]) if ours.shape[1] == theirs.shape[1] == 1 else None

    def cells(self, rows: np.ndarray | slice = slice(None)) -> dict[str, SliceCell]:
        """Every method's cell for some of the users."""
        inside = {method: values[rows] for method, values in self.primary.items()}
        return {
            method: SliceCell(
                len(inside[method]), float(inside[method].mean()), interval, float(self.recall[method][rows].mean())
            )
            for method, interval in intervals(inside, PART_RESAMPLES).items()
        }


def _columns(
    stored: Mapping[str, Sequence[Mapping[str, np.ndarray]]], primary: str, recall: str, rows: np.ndarray | slice
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The primary metric and the recall of every method, (U, S) each, of the users in ``rows``."""
    first, second = (
        {method: np.stack([one[name][rows] for one in runs], 1) for method, runs in stored.items()}
        for name in (primary, recall)
    )
    return first, second


def intervals(scores: Mapping[str, np.ndarray], resamples: int) -> dict[str, Interval]:
    """Bootstrap interval of every method's mean over users and seeds, with the same draws for all."""
    if not scores:
        return {}
    low, high = bootstrap_interval(np.stack([s.mean(1) for s in scores.values()], 1), resamples).tolist()
    return dict(zip(scores, zip(low, high, strict=True), strict=True))


def slice_cells(scores: Scores) -> dict[str, dict[str, dict[str, SliceCell]]]:
    """method -> slice -> label -> cell; labels without users are left out."""
    cells: dict[str, dict[str, dict[str, SliceCell]]] = {
        method: {name: {} for name in scores.slices} for method in scores.primary
    }
    for name, (labels, codes) in scores.slices.items():
        for code, label in enumerate(labels):
            rows = np.flatnonzero(codes == code)
            if len(rows):
                for method, cell in scores.cells(rows).items():
                    cells[method][name][label] = cell
    return cells


def setting_cells(scores: Scores) -> dict[str, dict[str, SliceCell]]:
    """method -> setting -> cell."""
    cells: dict[str, dict[str, SliceCell]] = {method: {} for method in scores.primary}
    for name, part in scores.settings.items():
        for method, cell in part.cells().items():
            cells[method][name] = cell
    return cells
