"""GenPlugin's training signals: a language encoder beside the ID encoder, alignment between them, soft substitution.

Letters in shapes: B users, L items of history, C codes of an item, V vocabulary, D width, M width of a text vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.blocks.t5 import Shape, Stack, initialise_layers


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Equations 1 and 2: item- and user-level contrast of the two encoders."""

    item_weight: float = 0.1
    user_weight: float = 0.5
    """The released code has 0 here in its TIGER variant; the paper's figures fit .5 (METHODS 3.2)."""
    temperature: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Substitution:
    """Section 3.1.2: codes the ID branch reads are replaced by what the language branch predicts, and equation 4."""

    batch_probability: float = 0.5
    """Share of batches with any substitution at all."""
    probability: float = 0.4
    """Of such a batch, the share of codes replaced (never the first code); both together give the paper's .2."""
    first_epoch: int = 10
    """Epochs of plain teacher forcing before it begins."""
    fusion: int = 5
    """Predicted codes that are mixed."""
    fusion_rule: str = "softmax"
    """Weights of the mixed codes: ``softmax`` over their logits (the paper), or ``share``, the raw logits over their
    sum, which the released code has and which can turn negative."""
    divergence_weight: float = 0.5
    temperature: float = 0.85


class LanguageEncoder(nn.Module):
    """Text vectors of the history -> language states: two linear layers and a T5 encoder of its own."""

    def __init__(self, text_width: int, hidden: int, shape: Shape, layers: int):
        super().__init__()
        # No activation in between: so it is in the released code, whatever "feed-forward" may suggest.
        self.project = nn.Sequential(nn.Linear(text_width, hidden), nn.Linear(hidden, shape.width))
        self.encoder = Stack(shape, layers, causal=False)
        initialise_layers(self.encoder, shape)
        self.epochs: Tensor
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))
        """Epochs done; a buffer, so that a resumed training knows."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Text vectors (B, L, M) -> states (B, L + 1, D); the last place is the end of the text, a zero vector."""
        return self.encoder(self.project(F.pad(vectors, (0, 0, 0, 1))))


def contrast(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Equations 1 and 2: rows of (N, D) that belong together against all other rows, in both directions, mean."""
    scores = one.float() @ other.float().T / temperature  # (N, N)
    right = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)


def item_states(memory: Tensor, n_items: int, n_codes: int) -> Tensor:
    """ID-encoder states (B, S, D) -> (B, L, D): the sum over the codes of every item, which stand last."""
    return memory[:, -n_items * n_codes :].unflatten(1, (n_items, n_codes)).sum(2)


def divergence(language: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Equation 4: KL both ways between the next-code distributions of logits (B, C, V), mean over B and C."""
    log_p, log_q = ((logits.float() / temperature).log_softmax(-1) for logits in (language, ids))
    both = (log_p.exp() - log_q.exp()) * (log_p - log_q)  # KL(p || q) + KL(q || p)
    return both.sum(-1).mean()


def soft_codes(logits: Tensor, embedding: Tensor, settings: Substitution) -> Tensor:
    """logits (B, C, V) and embedding (V, D) -> (B, C, D): the weighted mean of the likeliest codes' embeddings.

    Gradients flow through the weights into the language branch.
    """
    best = logits.float().topk(min(settings.fusion, logits.shape[-1]), dim=-1)
    if settings.fusion_rule == "softmax":
        weights = best.values.softmax(-1)
    elif settings.fusion_rule == "share":
        weights = best.values / best.values.sum(-1, keepdim=True)
    else:
        raise ValueError(f"unknown fusion rule '{settings.fusion_rule}'; use softmax or share")
    return (weights[..., None] * embedding[best.indices]).sum(-2)


def substituted(x: Tensor, logits: Tensor, embedding: Tensor, settings: Substitution) -> Tensor:
    """Decoder input x (B, C, D), start token first, with some codes replaced by what the language branch predicts.

    ``logits`` (B, C, V) at place t predict the code that stands at place t + 1 of the input. The start token and the
    first code are never replaced; one draw per place for the whole batch, as released.
    """
    soft = F.pad(soft_codes(logits[:, :-1], embedding, settings).to(x.dtype), (0, 0, 1, 0))  # (B, C, D)
    replaced = torch.rand(x.shape[1]) < settings.probability
    replaced[:2] = False
    return torch.where(replaced.to(x.device)[:, None], soft, x)
