"""RecBole's model classes as bare modules: importing them, and what they ask of a config and a dataset."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch

ITEMS, LENGTH, TARGET, USER = "item_id_list", "item_length", "item_id", "user_id"
"""The columns of RecBole's interactions, under its default names."""
NEGATIVE = "neg_"
"""Before the name of a column, the same of a drawn negative."""
SEQUENTIAL, GENERAL = "sequential_recommender", "general_recommender"


class Catalogue:
    """What RecBole's models ask of a dataset: how many users and items there are, PAD among them."""

    def __init__(self, n_users: int, n_items: int):
        self.user_num, self.item_num = n_users + 1, n_items + 1
        self.sizes = {USER: self.user_num, TARGET: self.item_num}

    def num(self, field_name: str) -> int:
        return self.sizes[field_name]


def build_model(
    family: str, name: str, options: Mapping[str, Any], dataset: Any, device: str, max_history: int = 0
) -> Any:
    """RecBole's model of this name, freshly initialised from torch's global generator."""
    fields = {
        "USER_ID_FIELD": USER,
        "ITEM_ID_FIELD": TARGET,
        "LIST_SUFFIX": ITEMS.removeprefix(TARGET),
        "ITEM_LIST_LENGTH_FIELD": LENGTH,
        "NEG_PREFIX": NEGATIVE,
    }
    settings = fields | {"MAX_ITEM_LIST_LENGTH": max_history, "device": torch.device(device)} | dict(options)
    return getattr(models(family), name)(settings, dataset).to(device)


def models(family: str) -> ModuleType:
    """RecBole's ``sequential_recommender`` or ``general_recommender`` models.

    Raises ValueError with the command that installs them.
    """
    tensorboard = "torch.utils.tensorboard"
    stub = importlib.util.find_spec("tensorboard") is None and tensorboard not in sys.modules
    if stub:  # RecBole imports it for its Trainer's logs; installing 60 MB for that is not worth it
        sys.modules[tensorboard] = ModuleType(tensorboard)
        sys.modules[tensorboard].SummaryWriter = object  # type: ignore[attr-defined]
    checked = torch.is_anomaly_enabled()
    try:
        return importlib.import_module(f"recbole.model.{family}")
    except ImportError as error:
        raise ValueError(
            f"RecBole cannot be imported ({error}); run: pip install --no-deps -r requirements-recbole.txt"
        ) from error
    finally:
        # One of its models switches autograd's anomaly checks on for the whole process.
        torch.autograd.set_detect_anomaly(checked)
        if stub:
            del sys.modules[tensorboard]
