"""What RecBole's general models are trained on: who had what in training, and items that a user did not have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from benchmark.types import TrainingView
from methods.recbole.library import TARGET, USER, Catalogue


class Purchases(Catalogue):
    """A catalogue with its training interactions, in the form in which RecBole's datasets give them."""

    def __init__(self, view: TrainingView):
        super().__init__(view.n_users, view.n_items)
        self.users = view.users[view.sequences.row_of].astype(np.int64)  # (T,)
        self.items = view.sequences.items.astype(np.int64)  # (T,)

    def inter_matrix(self, form: str) -> Any:
        """(n_users + 1, n_items + 1) ones where a user had an item, as a scipy ``coo`` or ``csr`` matrix."""
        shape = (self.num(USER), self.num(TARGET))
        ones = np.ones(len(self.items), np.float32)
        return sparse.coo_matrix((ones, (self.users, self.items)), shape=shape).asformat(form)


class Negatives:
    """Uniform draws from the items that a user did not have in training, as RecBole's sampler, without rejections.

    The r-th item that a user lacks is r + 1 + the number of his items that have at most r such items below them.
    Raises ValueError when a user has every item.
    """

    def __init__(self, purchases: Purchases, device: torch.device):
        self.stride = purchases.num(TARGET)
        owned = np.unique(purchases.users * self.stride + purchases.items)  # by user, then item; each once
        counts = np.bincount(owned // self.stride, minlength=purchases.num(USER))  # (n_users + 1,)
        starts = np.cumsum(counts) - counts
        if counts.max(initial=0) >= self.stride - 1:
            raise ValueError("a user has every item, so no negative can be drawn for him; choose another method")
        lacking_below = owned - 1 - (np.arange(len(owned)) - starts[owned // self.stride])
        self.below = torch.from_numpy(lacking_below).to(device)  # (T,) user * stride + items lacking below this one
        self.starts = torch.from_numpy(starts).to(device)
        self.lacking = torch.from_numpy(self.stride - 1 - counts).to(device)

    def draw(self, users: Tensor) -> Tensor:
        """(B,) one item for each of users (B,), from torch's global generator."""
        lacking = self.lacking[users]
        random = torch.rand(users.shape, dtype=torch.float64, device=users.device)
        drawn = torch.minimum((random * lacking).long(), lacking - 1)
        owned_before = torch.searchsorted(self.below, users * self.stride + drawn, right=True) - self.starts[users]
        return drawn + 1 + owned_before


@contextmanager
def old_scipy() -> Iterator[None]:
    """Lend scipy's ``dok_matrix`` the ``_update`` it lost in 1.13, with which LightGCN builds its graph."""
    if hasattr(sparse.dok_matrix, "_update"):
        yield
        return
    sparse.dok_matrix._update = lambda self, values: self._dict.update(values)
    try:
        yield
    finally:
        del sparse.dok_matrix._update
