"""RecBole's own models on this suite's split, training loop, selection rule and ranking: ``recbole:SASRec``.

The models are driven as bare modules: RecBole's Config, Dataset, DataLoader and Trainer take no part.
``docs/recbole.md`` says what they do differently by default.
"""

from __future__ import annotations

from typing import ClassVar

from benchmark.method import Method
from methods.recbole.bert4rec import BERT4Rec
from methods.recbole.general import BPR, ItemKNN, LightGCN, Pop
from methods.recbole.personal import HGN, Caser
from methods.recbole.s3rec import S3Rec
from methods.recbole.sequential import GRU4Rec, SASRec


class RecBole(Method):
    """The door to the models, each a class of its own. RecBole: Zhao et al., CIKM 2021."""

    variants = {
        "GRU4Rec": GRU4Rec,
        "SASRec": SASRec,
        "BERT4Rec": BERT4Rec,
        "S3Rec": S3Rec,
        "Caser": Caser,
        "HGN": HGN,
        "BPR": BPR,
        "LightGCN": LightGCN,
        "ItemKNN": ItemKNN,
        "Pop": Pop,
    }
    arguments: ClassVar[tuple[str, ...]] = tuple(variants)
    lineup: ClassVar[tuple[str, ...]] = (
        ":GRU4Rec",
        ":GRU4Rec@bpr",
        ":SASRec",
        ":SASRec@bpr",
        ":BERT4Rec",
        ":S3Rec",
        ":Caser",
        ":HGN",
        ":BPR@drop-seen",
        ":LightGCN@drop-seen",
        ":ItemKNN@drop-seen",
        ":Pop@drop-seen",
    )


METHOD = RecBole
