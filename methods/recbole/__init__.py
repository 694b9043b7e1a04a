"""RecBole's own models on this suite's split, training loop, selection rule and ranking: ``recbole:SASRec``.

The models are driven as bare modules: RecBole's Config, Dataset, DataLoader and Trainer take no part.
``docs/recbole.md`` says what they do differently by default.
"""

from __future__ import annotations

from typing import ClassVar

from benchmark.method import Method
from methods.recbole.sequential import GRU4Rec, SASRec


class RecBole(Method):
    """The door to the models, each a class of its own. RecBole: Zhao et al., CIKM 2021."""

    variants = {"GRU4Rec": GRU4Rec, "SASRec": SASRec}
    arguments: ClassVar[tuple[str, ...]] = tuple(variants)
    lineup: ClassVar[tuple[str, ...]] = (":GRU4Rec", ":SASRec")


METHOD = RecBole
