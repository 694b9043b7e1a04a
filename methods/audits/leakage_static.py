"""Leaks that a dataset and a protocol have before any method has seen them: repeats, order, numbering, texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmark.protocol import Protocol
from benchmark.types import PAD, Dataset, Questions, Sequences, Split
from methods.audits.leakage_checks import ALPHA, PASS, Check, chance, judged, not_applicable, one_way

NUMBERING = "sequentially numbered ids"
LEAST_TITLE = 8
"""Characters of a title that another text may be said to contain; shorter ones are words of any text."""


@dataclass(frozen=True)
class Subject:
    """A dataset under a protocol, with the pairs (user, item) of every part and where they stand in time."""

    dataset: Dataset
    protocol: Protocol
    split: Split

    @classmethod
    def of(cls, dataset: Dataset, protocol: Protocol) -> Subject:
        """Raises ValueError when the data cannot be asked this way."""
        return cls(dataset, protocol, protocol.split(dataset))

    def pairs(self, users: np.ndarray, rows: Sequences) -> np.ndarray:
        """(T,) int64: every item of ``rows`` with the user of its row as one number."""
        return self.pair(users[rows.row_of], rows.items)

    def pair(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(P,) int64 for users and items (P,)."""
        return users.astype(np.int64) * (self.dataset.n_items + 1) + items

    @cached_property
    def train(self) -> np.ndarray:
        return self.pairs(self.split.train.users, self.split.train.sequences)

    def answers(self, questions: Questions) -> np.ndarray:
        return self.pairs(questions.cases.users, questions.targets)

    @cached_property
    def test(self) -> np.ndarray:
        return self.answers(self.split.test)

    @cached_property
    def valid(self) -> np.ndarray:
        return self.answers(self.split.train.valid)

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """All pairs of the dataset, sorted, and the interaction each is."""
        pairs = self.pair(self.dataset.users, self.dataset.items)
        order = np.argsort(pairs, kind="stable")
        return pairs[order], order

    def rows_of(self, pairs: np.ndarray) -> np.ndarray:
        """(P,) the interaction (its first, where it repeats) that each pair is."""
        known, order = self._rows
        return order[np.searchsorted(known, pairs)]

    def places(self, pairs: np.ndarray) -> np.ndarray:
        """(P,) place of each pair among all interactions ordered by user, time and file: earlier is lower."""
        place = np.empty(len(self.dataset.users), np.int64)
        place[self.dataset.chronological] = np.arange(len(place))
        return place[self.rows_of(pairs)]

    @cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Last item before a test answer, the answer, and whether both have one time: three (P,) arrays."""
        targets, cases = self.split.test.targets, self.split.test.cases
        last = cases.seen.last_items[targets.row_of]
        known = last != PAD
        users = cases.users[targets.row_of][known]
        last, answers = last[known], targets.items[known]
        times = self.dataset.timestamps
        before, after = (times[self.rows_of(self.pair(users, items))] for items in (last, answers))
        return last, answers, before == after


def checks(subject: Subject) -> list[Check]:
    """Every static check, in the order of the page."""
    return [
        repeated(subject),
        answers_in_histories(subject),
        answers_in_training(subject),
        windows(subject),
        others_future(subject),
        ids_of_dataset(subject),
        equal_times(subject),
        cold_items(subject),
        texts_naming_users(subject),
        texts_naming_answers(subject),
        selection(subject),
    ]


def repeated(subject: Subject) -> Check:
    pairs = subject.pair(subject.dataset.users, subject.dataset.items)
    twice = len(pairs) - len(np.unique(pairs))
    says = f"{twice:,} of {len(pairs):,} interactions repeat an earlier one of the same user and item"
    return judged("repeated interactions", twice > 0, says, repeated=twice, interactions=len(pairs))


def answers_in_histories(subject: Subject) -> Check:
    """An answer that the user already had can be found by repeating the history."""
    counts = {}
    for name, questions in (("test", subject.split.test), ("validation", subject.split.train.valid)):
        had = subject.pairs(questions.cases.users, questions.cases.seen)
        counts[name] = int(np.isin(subject.answers(questions), had).sum())
    n_test, n_valid = len(subject.test), len(subject.valid)
    says = (
        f"{counts['test']:,} of {n_test:,} test answers and {counts['validation']:,} of {n_valid:,} validation answers "
        "are items that the user already had"
    )
    return judged("answers in histories", sum(counts.values()) > 0, says, **counts)


def answers_in_training(subject: Subject) -> Check:
    found = {name: int(np.isin(getattr(subject, name), subject.train).sum()) for name in ("test", "valid")}
    says = (
        f"{found['test']:,} test and {found['valid']:,} validation answers stand in the training sequence of their own "
        f"user ({len(subject.train):,} training interactions)"
    )
    return judged("answers in training sequences", sum(found.values()) > 0, says, **found)


def windows(subject: Subject) -> Check:
    """Training before validation before test in each user's own order, so that no window of training crosses it."""
    n = subject.dataset.n_items + 1
    first = {}
    for name in ("valid", "test"):
        pairs = getattr(subject, name)
        first[name] = np.full(subject.dataset.n_users + 1, np.iinfo(np.int64).max)
        np.minimum.at(first[name], pairs // n, subject.places(pairs))
    train, valid = subject.places(subject.train), subject.places(subject.valid)
    users = subject.train // n
    late = int((train >= np.minimum(first["valid"], first["test"])[users]).sum())
    late_valid = int((valid >= first["test"][subject.valid // n]).sum())
    says = (
        f"{late:,} of {len(train):,} training interactions come at or after the first answer of their user, and "
        f"{late_valid:,} of {len(valid):,} validation answers at or after the first test answer"
    )
    return judged("windows across the split", late + late_valid > 0, says, training=late, validation=late_valid)


def others_future(subject: Subject) -> Check:
    """Interactions of other users after an answer: none under one cut in time, many under leave-one-out."""
    name, dataset = "training after the cut in time", subject.dataset
    if dataset.order_only:
        return not_applicable(name, "the data have no times that compare users, so nobody can say what came later")
    train, valid, test = (np.sort(dataset.timestamps[subject.rows_of(getattr(subject, p))]) for p in _PARTS)
    later = float((1 - np.searchsorted(train, test, side="right") / len(train)).mean())
    told = f"an average test answer is followed in time by {100 * later:.1f} % of the training interactions"
    if "cut" not in subject.protocol.rules:
        why = f"{subject.protocol.name} cuts every user's history for itself; {told}, which is a property of it"
        return not_applicable(name, why, later=later)
    late = int((train >= valid[0]).sum() + (train >= test[0]).sum() + (valid >= test[0]).sum())
    return judged(name, late > 0, f"{late:,} interactions stand in a part that ends before them; {told}", late=late)


_PARTS = ("train", "valid", "test")


def ids_of_dataset(subject: Subject) -> Check:
    return numbering(subject, np.arange(subject.dataset.n_items + 1))


def numbering(subject: Subject, numbers: np.ndarray) -> Check:
    """Do numbers of items (N + 1,) count along the sequences, as when items are numbered by first appearance?

    Then an answer's number is often the last item's plus one, and hardly ever minus one. Only answers with a later
    time than the item before are counted; those of one time are ``equal_times``'s.
    """
    last, answers, tied = subject.steps
    tied = np.zeros_like(tied) if subject.dataset.order_only else tied
    last, answers = np.unique(np.stack([last, answers])[:, ~tied], axis=1)  # many take the same two: one numbering
    step = numbers[answers] - numbers[last]
    up, down = int((step == 1).sum()), int((step == -1).sum())
    p = one_way(up, down)
    says = (
        f"in {up:,} of {len(step):,} different pairs of a last item and its answer the answer has the next number and "
        f"in {down:,} the one before (as often when numbers say nothing, {chance(p)})"
    )
    return judged(NUMBERING, p < ALPHA, says, next=up, previous=down, answers=len(step), p=p)


def equal_times(subject: Subject) -> Check:
    """Items of one time in the order of their ids: their order is not the user's, and the answer's id is bounded."""
    name = "order of equal times"
    if subject.dataset.order_only:
        return not_applicable(name, "the data have only an order, no times")
    last, answers, tied = subject.steps
    up = int((answers > last)[tied].sum())
    down = int(tied.sum()) - up
    p = min(1.0, 2 * one_way(max(up, down), min(up, down)))
    if not tied.any():
        return Check(name, PASS, f"none of {len(tied):,} answers has the time of the item before", {"tied": 0})
    says = (
        f"{up + down:,} of {len(tied):,} answers have the time of the item before; among these the answer has the "
        f"higher id {up:,} times and the lower {down:,} times (as often when ties are in no order of ids, {chance(p)})"
    )
    return judged(name, p < ALPHA, says, tied=up + down, higher=up, lower=down, p=p)


def cold_items(subject: Subject) -> Check:
    """Items that training cannot know: none of them may count as known, nor a known one as cold."""
    name, split = "cold items in training", subject.split
    counts = split.train.item_counts
    targets = split.test.targets.items
    cold, asked = int((counts[1:] == 0).sum()), int((counts[targets] == 0).sum())
    told = f"{cold:,} items have no training interaction and are the answer {asked:,} times of {len(targets):,}"
    numbers = {"cold_items": cold, "cold_answers": asked}
    if "cold" not in split.settings:
        return not_applicable(name, f"{told}; {subject.protocol.name} does not ask for them apart", **numbers)
    candidates = split.settings["cold"].candidates
    wrong = 0 if candidates is None else int((counts[candidates] > 0).sum())
    wrong += int((counts[split.settings["cold"].questions.targets.items] > 0).sum())
    says = f"{wrong:,} candidates or answers of the cold setting have a training interaction; {told}"
    return judged(name, wrong > 0, says, wrong=wrong, **numbers)


def texts_naming_users(subject: Subject) -> Check:
    """The text of an answer that names its own user, beside that of the answer before, which should as often."""
    name, dataset = "item texts that name users", subject.dataset
    if not any(dataset.item_text):
        return not_applicable(name, "the items have no text")
    targets, users = subject.split.test.targets, subject.split.test.cases.users
    texts = [dataset.item_text[item] for item in targets.items]
    keys = [str(dataset.user_keys[user - 1]) for user in users[targets.row_of]]
    own = np.array([_names(text, key) for text, key in zip(texts, keys, strict=True)])
    other = np.array([_names(text, key) for text, key in zip([*texts[1:], texts[0]], keys, strict=True)])
    p = one_way(int((own & ~other).sum()), int((other & ~own).sum()))
    says = (
        f"{own.sum():,} of {len(texts):,} users are named by the text of their answer and {other.sum():,} by that of "
        f"the next user's ({chance(p)})"
    )
    return judged(name, p < ALPHA, says, own=int(own.sum()), other=int(other.sum()), p=p)


def texts_naming_answers(subject: Subject) -> Check:
    """A text that tells what comes next names the answer, and the answer's text does not name it back."""
    name, dataset = "item texts that name the next item", subject.dataset
    if not any(dataset.item_text):
        return not_applicable(name, "the items have no text")
    titles = dataset.item_fields.get("title")
    last, answers, _ = subject.steps
    last, answers = np.unique(np.stack([last, answers]), axis=1)  # many take the same two: one fact of their texts

    def tells(text: str, item: int) -> bool:
        title = "" if titles is None else str(titles[item])
        return _names(text, str(dataset.item_keys[item - 1])) or (len(title) >= LEAST_TITLE and title in text)

    ahead = np.array([tells(dataset.item_text[a], b) for a, b in zip(last, answers, strict=True)], bool)
    back = np.array([tells(dataset.item_text[b], a) for a, b in zip(last, answers, strict=True)], bool)
    p = one_way(int((ahead & ~back).sum()), int((back & ~ahead).sum()))
    says = (
        f"of {len(last):,} different pairs of a last item and its answer the last item's text holds the answer's title "
        f"or key {ahead.sum():,} times, and the answer's text the last item's {back.sum():,} times ({chance(p)})"
    )
    return judged(name, p < ALPHA, says, ahead=int(ahead.sum()), back=int(back.sum()), p=p)


def _names(text: str, key: str) -> bool:
    """Whether ``key`` stands in ``text`` as a word of its own."""
    return key in text and re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text) is not None


def selection(subject: Subject) -> Check:
    """A checkpoint chosen by validation must not be chosen by the test."""
    both = int(np.isin(subject.test, subject.valid).sum())
    says = f"{both:,} of {len(subject.test):,} test answers are validation answers of the same user too"
    return judged("selection on test", both > 0, says, both=both)
