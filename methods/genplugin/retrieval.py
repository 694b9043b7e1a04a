"""Whom a user is like: candidates by BM25 over item texts and by collaborative vectors, re-ranked by ID states.

The people found are rows of a corpus: what every user of the training split had, cut to a window. Letters in shapes:
R rows of a corpus, Q queries, P training pairs, n neighbours, D width of the ID encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.artifacts import cached
from benchmark.method import config_dict
from benchmark.run import Run
from benchmark.types import Cases, Sequences, TrainingView
from methods.blocks.bm25 import BM25, item_counts, pseudo_documents, term_counts
from methods.blocks.collaborative import (
    Collaborative,
    CollaborativeModel,
    collaborative_model,
    identity,
    view_hashes,
    with_weights,
)
from methods.blocks.nearest import NOBODY, top_cosine
from methods.genplugin.neighbours import (
    Asked,
    alternate,
    case_queries,
    corpus_windows,
    cosines,
    merge,
    paper_corpora,
    training_queries,
)

VERSION = 1
"""Part of every cached set of candidates; a change that moves them raises it."""
PATHS = ("both", "content", "collaborative", "similarity")
STAGES = ("train", "valid", "test")
"""Who asks: training pairs, validation or the test."""
STATE_ROWS = 512
"""Windows encoded at once."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How the neighbours of a user are found (section 3.2 of the paper, METHODS 3.5)."""

    paths: str = "both"
    """``both``; ``content`` (BM25) or ``collaborative`` (user vectors) alone; ``similarity``: nearest by ID states."""
    rerank: bool = True
    """Whether those found one way only are ordered by ID states; else both ways take turns."""
    per_path: int = 50
    neighbours: int = 30
    corpus: str = "training"
    """``training`` items alone, or the ``paper``'s windows, which for the test hold others' validation items."""
    text: str = "template"
    """What BM25 reads: the suite's item text, or the ``title`` alone (the released code)."""
    exclude_self: bool = True
    """The released code finds the user himself, with the answer of the training pair in his document."""


@dataclass
class Corpus:
    """The people who can be found: row r is ``view.users[r]`` with his window, and his state once it is remembered."""

    windows: Sequences  # (R rows)
    states: Tensor | None = None  # (R, D)


class Neighbours:
    """Finds the neighbours of training pairs and of cases, and keeps the states of everybody who can be found."""

    def __init__(self, view: TrainingView, settings: Retrieval, collaborative: Collaborative, run: Run):
        if settings.paths not in PATHS:
            raise ValueError(f"unknown retrieval paths '{settings.paths}'; use one of {', '.join(PATHS)}")
        self.view, self.settings, self.run = view, settings, run
        self.collaborative = collaborative
        self.corpora = _corpora(view, settings.corpus)
        self.asked = "train"
        """Whose corpus is meant, one of ``STAGES``."""
        self._model: CollaborativeModel | None = None
        self._searches: dict[tuple[str, str], Callable[[Asked], np.ndarray]] = {}
        self._known: dict[tuple[str, int, bytes], np.ndarray] = {}

    @property
    def states(self) -> Tensor:
        """(R, D) of the corpus that is being asked."""
        states = self.corpora[self.asked].states
        assert states is not None, "the states of the corpus are not made yet"
        return states

    def remember(self, pooled: Callable[[Cases], Tensor]) -> None:
        """Encode and keep everybody's window; ``pooled`` makes (B, D) of cases."""
        for corpus in {id(c): c for c in self.corpora.values()}.values():
            windows = corpus.windows
            order = np.argsort(windows.lengths, kind="stable")
            parts = []
            with torch.inference_mode():
                for start in range(0, len(order), STATE_ROWS):
                    rows = order[start : start + STATE_ROWS]
                    some = windows.take(rows)
                    parts.append(pooled(Cases(self.view.users[rows], some, some, self.view.valid.cases.tie_order)))
                    self.run.progress("remember", start + len(rows), len(order))
            back = torch.from_numpy(np.argsort(order, kind="stable")).to(parts[0].device)
            corpus.states = torch.cat(parts)[back].clone()

    @property
    def model(self) -> CollaborativeModel:
        """Whose user vectors are one of the two ways."""
        if self._model is None:
            self._model = collaborative_model(self.view, self.collaborative, self.run)
        return self._model

    @property
    def report(self) -> dict[str, Any]:
        """Of the collaborative model, where it is used."""
        return self.model.report if self.settings.paths in ("both", "collaborative") else {}

    def state(self) -> dict[str, Any]:
        """What ``load`` needs: the states of every corpus once, and the collaborative model."""
        distinct = STAGES if self.settings.corpus == "paper" else STAGES[:1]
        kept: dict[str, Any] = {"states": {asked: self.corpora[asked].states for asked in distinct}}
        if self.report:
            kept["collaborative"] = {"weights": self.model.network.state_dict(), "report": self.report}
        return kept

    def load(self, state: Mapping[str, Any]) -> None:
        for asked, states in state["states"].items():
            self.corpora[asked].states = states
        if "collaborative" in state:
            known = state["collaborative"]
            self._model = with_weights(self.view, self.collaborative, self.run, known["weights"], known["report"])

    def of_pairs(self, pooled: np.ndarray) -> np.ndarray:
        """The neighbours (P, n) of every training prefix with its own state (P, D), in the order of NextItemPairs."""
        self.asked = "train"
        queries = self._excluding(training_queries(self.view))
        found = [] if self.settings.paths == "similarity" else self._candidates(queries, keep=True)
        return self._merged(found, pooled, queries)

    def look_up(self, cases: Cases, asked: str) -> None:
        """Find the candidates of all cases at once, which is many times faster than batch by batch."""
        self.asked = asked
        keys = self._keys(cases)
        missing = [row for row, key in enumerate(keys) if key not in self._known]
        if not missing or self.settings.paths == "similarity":
            return
        queries = self._excluding(case_queries(self.view, cases.take(np.array(missing))))
        found = np.stack(self._candidates(queries), 1)  # (Q, 2, per_path)
        self._known.update(zip([keys[row] for row in missing], found, strict=True))

    def of_cases(self, cases: Cases, pooled: np.ndarray) -> np.ndarray:
        """The neighbours (B, n) of cases with their own states (B, D), NOBODY at the end."""
        self.look_up(cases, self.asked)
        found: list[np.ndarray] = []
        if self.settings.paths != "similarity":
            both = np.stack([self._known[key] for key in self._keys(cases)])  # (B, 2, per_path)
            found = [both[:, 0], both[:, 1]]
        return self._merged(found, pooled, self._excluding(case_queries(self.view, cases)))

    def _merged(self, found: list[np.ndarray], pooled: np.ndarray, queries: Asked) -> np.ndarray:
        n, states = self.settings.neighbours, self.states.cpu().numpy()
        if not found:  # nobody was searched for: the nearest of all by ID states
            return top_cosine(states, pooled, n, queries.own).rows
        if not self.settings.rerank:
            return alternate(found[0], found[1], n)
        return merge(found[0], found[1], cosines(pooled, states), n)

    def _keys(self, cases: Cases) -> list[tuple[str, int, bytes]]:
        histories = zip(cases.users.tolist(), cases.histories, strict=True)
        return [(self.asked, user, history.tobytes()) for user, history in histories]

    def _excluding(self, queries: Asked) -> Asked:
        """The queries with the rows that must not be found for them: their own, or none."""
        return queries if self.settings.exclude_self else queries._replace(own=np.full_like(queries.own, NOBODY))

    def _candidates(self, queries: Asked, keep: bool = False) -> list[np.ndarray]:
        """Rows found by content and by vectors, each (Q, per_path); NOBODY alone for a way that is not used."""
        nobody = np.full((len(queries.own), self.settings.per_path), NOBODY, np.int32)
        found = []
        for path in ("content", "collaborative"):
            if self.settings.paths not in ("both", path):
                found.append(nobody)
                continue

            def compute(path: str = path) -> dict[str, np.ndarray]:
                return {"rows": self._search(path)(queries)}

            kept = self.run.artifacts_dir if keep else None
            found.append(cached(kept, self._key(path), compute)["rows"])
        return found

    def _key(self, path: str) -> dict[str, Any]:
        """What the candidates of the training pairs depend on."""
        kept = ("per_path", "corpus", "text", "exclude_self")
        key = {"version": VERSION, "settings": {k: v for k, v in config_dict(self.settings).items() if k in kept}}
        if path == "collaborative":
            key |= identity(self.view, self.collaborative, self.run)
        else:
            key |= view_hashes(self.view)
            key["texts"] = hashlib.sha256("\n".join(self._texts()).encode()).hexdigest()
        return key | {"stage": f"{path}-neighbours"}

    def _search(self, path: str) -> Callable[[Asked], np.ndarray]:
        """Queries -> rows (Q, per_path), best first."""
        known = self._searches.get((path, self.asked))
        if known is None:
            known = self._by_content() if path == "content" else self._by_vectors()
            self._searches[path, self.asked] = known
        return known

    def _texts(self) -> list[str]:
        """What BM25 reads of every item. Raises ValueError when that is titles and there are none."""
        if self.settings.text == "template":
            return list(self.view.item_text)
        if self.settings.text != "title" or "title" not in self.view.item_fields:
            raise ValueError(
                f"retrieval is to read the items' {self.settings.text}, which they lack; set retrieval.text to template"
            )
        return [str(title) for title in self.view.item_fields["title"]]

    def _by_content(self) -> Callable[[Asked], np.ndarray]:
        counts, windows = term_counts(self._texts()), self.corpora[self.asked].windows
        documents = BM25(pseudo_documents(counts, windows))

        def search(queries: Asked) -> np.ndarray:
            terms, told = item_counts(queries.windows, self.view.n_items), self._tell("content")
            return documents.top(terms, self.settings.per_path, queries.own, told, parts=counts).rows

        return search

    def _by_vectors(self) -> Callable[[Asked], np.ndarray]:
        model = self.model
        documents = model.users(self.corpora[self.asked].windows)  # (R, W)

        def search(queries: Asked) -> np.ndarray:
            asked, told = model.users(queries.windows), self._tell("collaborative")
            rows = top_cosine(documents, asked, self.settings.per_path, queries.own, told).rows
            rows[~asked.any(1)] = NOBODY  # an empty history is like nobody's
            return rows

        return search

    def _tell(self, path: str) -> Callable[[float, float], None]:
        return lambda done, total: self.run.progress(f"find by {path}", done, total)


def _corpora(view: TrainingView, kind: str) -> dict[str, Corpus]:
    """By what is asked: one corpus of training items for all, or the ``paper``'s three."""
    if kind == "training":
        return dict.fromkeys(STAGES, Corpus(corpus_windows(view)))
    if kind != "paper":
        raise ValueError(f"unknown corpus '{kind}'; use training or paper")
    if (view.valid.targets.lengths != 1).any():
        raise ValueError("the paper's windows are those of leave-one-out; set retrieval.corpus to training")
    return {asked: Corpus(windows) for asked, windows in paper_corpora(view)._asdict().items()}
