"""What an answer takes, said without a clock: the size of the model, and the arithmetic of one user's list.

Letters: N items of history.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmark.method import Method
from benchmark.types import Cases
from methods.audits.speed import Decoder
from methods.blocks.causal_lm import Causal
from methods.blocks.t5 import Stack


def size_name(config: Any) -> str:
    """The named size of a method's language model, or what the house's T5 is made of."""
    named = getattr(config, "language_model", None)
    if named is not None and named.name:
        return named.name + ("" if named.weights == "" else ", random weights" if named.weights == "random" else "*")
    shape = getattr(config, "backbone", None)
    if shape is None:
        return "-"
    return f"T5 d{shape.width} {shape.encoder_layers}+{shape.decoder_layers}"


def weights(method: Method) -> dict[str, int]:
    """Numbers of weights: ``backbone`` (the transformer's layers, no tables of tokens and no adapters), ``trainable``
    and ``all``."""
    parts = [part for part in vars(method).values() if isinstance(part, nn.Module)]
    every = {weight for part in parts for weight in part.parameters()}
    backbone = {
        weight
        for part in parts
        for module in part.modules()
        if isinstance(module, Causal | Stack)
        for name, weight in module.named_parameters()
        if "lora_" not in name
    }
    return {
        "backbone": sum(weight.numel() for weight in backbone),
        "trainable": sum(weight.numel() for weight in every if weight.requires_grad),
        "all": sum(weight.numel() for weight in every),
    }


def flops(decoder: Decoder, cases: Cases, length: int) -> int:
    """Floating-point operations of one user's list after ``length`` items of history: twice the multiplications of
    every matrix product that the decoder makes, of attention too, counted from the shapes.

    The history is the end of the longest one there is. What is not a matrix product (norms, softmax, look-ups, top-k)
    does not count.
    """
    longest = cases.take(np.array([int(cases.histories.lengths.argmax())]))
    one = Cases(longest.users, longest.histories.tail(length), longest.seen.tail(length), longest.tie_order)
    # Fused attention would go uncounted on a CPU.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), _Products() as products:
        decoder.decode(one)
    return products.flops


class _Products(TorchDispatchMode):
    """Adds up the FLOPs of every matrix product while it is entered, by torch's own table of formulas.

    Not torch's ``FlopCounterMode``: it tells modules apart, and in inference fails on one that returns a parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:  # operators made of others, such as linear, arrive whole in inference
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        found = func(*args, **kwargs)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=found))
        return found
