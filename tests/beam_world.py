"""Small semantic IDs, step functions without a model, and tiny T5s: what the tests of every decoder are asked on."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmark.datasets import load
from benchmark.lists import tie_order
from benchmark.types import Cases, Sequences
from methods.blocks.beam_search import Step
from methods.blocks.semantic_ids import PAD_TOKEN, SemanticIds
from methods.blocks.t5 import T5, Decoding, Shape

SHAPE = Shape(width=32, heads=2, head_width=16, feed=64, encoder_layers=2, decoder_layers=2)

Code = tuple[int, ...]


def make_ids(*codes: Code, sizes: Sequence[int]) -> SemanticIds:
    """Semantic IDs of items 1.. in this order."""
    return SemanticIds(np.array([(-1,) * len(sizes), *codes]), sizes)


def random_ids(n_items: int, sizes: Sequence[int], seed: int = 0, distinct: bool = True) -> SemanticIds:
    random = np.random.default_rng(seed)
    codes = random.integers(0, sizes, (8 * n_items, len(sizes)))
    codes = random.permutation(np.unique(codes, axis=0))[:n_items] if distinct else codes[:n_items]
    return make_ids(*map(tuple, codes.tolist()), sizes=sizes)


def make_cases(n_users: int, n_items: int, seed: int = 0) -> Cases:
    """Histories of 1 to 8 items, as ragged as they come."""
    random = np.random.default_rng(seed)
    histories = Sequences.from_rows([random.integers(1, n_items + 1, n) for n in random.integers(1, 9, n_users)])
    return Cases(random.permutation(n_users).astype(np.int32) + 1, histories, histories, tie_order(n_items, 1))


class Table:
    """A step function without a model: the probabilities of the next code are looked up by a beam's own codes."""

    def __init__(self, ids: SemanticIds, probabilities: Callable[[int, Code], Sequence[float]]):
        self.ids, self.probabilities = ids, probabilities
        self.widths: list[int] = []

    def __call__(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        if parents is None:
            assert (tokens == PAD_TOKEN).all()
            self.prefixes: list[list[Code]] = [[()] for _ in tokens]
        else:
            codes = tokens - self.ids.level(len(self.widths) - 1).start
            self.prefixes = [
                [of_user[parent] + (code,) for parent, code in zip(*row, strict=True)]
                for of_user, *row in zip(self.prefixes, parents.tolist(), codes.tolist(), strict=True)
            ]
        level = self.ids.level(len(self.widths))
        self.widths.append(tokens.shape[1])
        logits = torch.full((*tokens.shape, self.ids.vocab_size), -math.inf)
        for user, prefixes in enumerate(self.prefixes):
            for beam, prefix in enumerate(prefixes):
                logits[user, beam, level] = torch.tensor(self.probabilities(user, prefix)).log()
        return logits


def hand_made(table: Mapping[Code, Sequence[float]]) -> Callable[[int, Code], Sequence[float]]:
    return lambda _, prefix: table[prefix]


def drawn(ids: SemanticIds, seed: int) -> Callable[[int, Code], Sequence[float]]:
    """Probabilities drawn for every user and prefix, a fifth of the mass outside the level as in a young model."""

    def probabilities(user: int, prefix: Code) -> Sequence[float]:
        random = np.random.default_rng([seed, user, *prefix, len(prefix)])
        return (0.8 * random.dirichlet(np.ones(ids.sizes[len(prefix)]))).tolist()

    return probabilities


class Leaky(Table):
    """A table whose missing probability lies on the end token, as ``raw`` must notice and ``renorm`` must not."""

    def __call__(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        logits = super().__call__(tokens, parents)
        logits[..., 1] = (1 - logits.exp().sum(-1)).clamp(min=1e-30).log()
        return logits


def followers(ids: SemanticIds, items: Sequence[int]) -> dict[Code, list[int]]:
    """Prefix -> codes that lead on to one of the items."""
    found: dict[Code, set[int]] = defaultdict(set)
    for item in items:
        codes = ids.codes[item].tolist()
        for depth, code in enumerate(codes):
            found[tuple(codes[:depth])].add(code)
    return {prefix: sorted(codes) for prefix, codes in found.items()}


def by_table(ids: SemanticIds, probabilities: Callable[[int, Code], Sequence[float]]) -> Callable[[Cases], Step]:
    return lambda _: Leaky(ids, probabilities)


def small_model(ids: SemanticIds, seed: int = 0) -> T5:
    torch.manual_seed(seed)
    return T5(ids.vocab_size, SHAPE).eval()


def by_model(model: T5, ids: SemanticIds) -> Callable[[Cases], Step]:
    """How a method starts the search: encode right-padded histories, then decode step by step."""
    device = model.embedding.weight.device

    def start(cases: Cases) -> Step:
        histories = torch.from_numpy(cases.histories.padded().astype(np.int64)).to(device)
        tokens = ids.tokens(histories).flatten(1)
        mask = tokens != PAD_TOKEN
        return Decoding(model, model.encode(tokens, mask), mask).step

    return start


@torch.inference_mode()
def every_score(model: T5, ids: SemanticIds, cases: Cases, items: np.ndarray, rule: str) -> np.ndarray:
    """(B, M) log-probability of every item for every case: each user's own history, teacher forcing, a dictionary."""
    tokens = ids.tokens(torch.from_numpy(items))  # (M, L)
    shifted = torch.nn.functional.pad(tokens[:, :-1], (1, 0), value=PAD_TOKEN)
    next_codes = followers(ids, items.tolist())
    scores = np.zeros((len(cases), len(items)))
    for row, history in enumerate(cases.histories):
        memory = model.encode(ids.tokens(torch.from_numpy(history.astype(np.int64))).view(1, -1))
        logits = model.decode(shifted, memory.expand(len(items), -1, -1)).double()  # (M, L, V)
        for column, item in enumerate(items):
            for depth, code in enumerate(ids.codes[item].tolist()):
                prefix = tuple(ids.codes[item, :depth].tolist())
                start = ids.level(depth).start
                allowed = [start + code for code in next_codes[prefix]] if rule == "renorm" else slice(None)
                of_step = logits[column, depth]
                scores[row, column] += (of_step[start + code] - of_step[allowed].logsumexp(-1)).item()
    return scores


def coarse(ids: SemanticIds, seed: int) -> Callable[[int, Code], Sequence[float]]:
    """Probabilities of which many are equal, so that scores tie all the time."""

    def probabilities(user: int, prefix: Code) -> Sequence[float]:
        random = np.random.default_rng([seed, user, *prefix, len(prefix)])
        return (0.5 ** random.integers(3, 6, ids.sizes[len(prefix)])).tolist()

    return probabilities


def letter_ids() -> SemanticIds | None:
    """The semantic IDs that LETTER published for Beauty; None where $GENREC_DATA does not hold them."""
    path = Path(os.environ.get("GENREC_DATA", "")) / "reference/amazon14-beauty.letter-semantic-ids.json.gz"
    if "GENREC_DATA" not in os.environ or not path.is_file():
        return None
    published = json.loads(gzip.decompress(path.read_bytes()))
    keys = load("amazon14-beauty", None).item_keys
    codes = [tuple(int(token[3:-1]) for token in published[key]) for key in keys]  # "<a_183>" -> 183
    return make_ids(*codes, sizes=(256,) * 4)


TRAP = hand_made({(): [0.6, 0.4], (0,): [0.55, 0.45], (1,): [0.9, 0.1]})
"""(0, 0) .33, (0, 1) .27, (1, 0) .36, (1, 1) .04: the best ID starts with the worse code."""

FOUR = make_ids((0, 0), (0, 1), (1, 0), (1, 1), sizes=(2, 2))
"""The IDs that ``TRAP`` is about."""
