"""Masks and positions of SETRec: drawn by hand, and by the rules one pair of places at a time."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from methods.setrec.sequence import Layout, Parts, causal_layout, encoder_layout, identity_layout


def drawn(text: str) -> list[list[bool]]:
    """Rows of ``x`` (may see) and ``.``."""
    return [[sign == "x" for sign in line.split()] for line in text.strip().splitlines()]


def places(parts: Parts, prefixes: list[int]) -> list[tuple[str, int, int]]:
    """Every place of a decoder-only sequence as (part, item or prefix, place within it)."""
    found = [("instruction", 0, at) for at in range(parts.instruction)]
    found += [("item", item, at) for item in range(parts.items) for at in range(parts.tokens)]
    for prefix in prefixes:
        found += [("response", prefix, at) for at in range(parts.response)]
        found += [("query", prefix, at) for at in range(parts.queries)]
    return found


def sees(one: tuple[str, int, int], other: tuple[str, int, int], sparse: bool) -> bool:
    """The rules, as the paper and the card say them."""
    part, group, at = one
    its_part, its_group, its_at = other
    if its_part == "instruction":
        return part != "instruction" or its_at <= at
    if its_part == "item":
        if part == "item":
            return its_group < group or (its_group == group and (its_at == at or (not sparse and its_at < at)))
        return part in ("response", "query") and its_group < group
    if group != its_group or part not in ("response", "query"):
        return False
    if its_part == "response":
        return part == "query" or its_at <= at
    return part == "query" and its_at == at


def test_a_small_causal_sequence_by_hand() -> None:
    parts = Parts(instruction=1, items=2, tokens=2, response=1, queries=2)
    layout = causal_layout(parts, [2], sparse=True)
    expected = drawn(
        """
        x . . . . . . .
        x x . . . . . .
        x . x . . . . .
        x x x x . . . .
        x x x . x . . .
        x x x x x x . .
        x x x x x x x .
        x x x x x x . x
        """
    )
    assert layout.mask.tolist() == expected
    assert layout.positions.tolist() == [0, 1, 1, 2, 2, 3, 4, 4]


def test_blocks_of_prefixes_by_hand() -> None:
    parts = Parts(instruction=0, items=2, tokens=1, response=0, queries=2)
    layout = causal_layout(parts, [1, 2], sparse=True)
    expected = drawn(
        """
        x . . . . .
        x x . . . .
        x . x . . .
        x . . x . .
        x x . . x .
        x x . . . x
        """
    )
    assert layout.mask.tolist() == expected
    assert layout.positions.tolist() == [0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(("instruction", "items", "tokens", "response"), list(product((0, 3), (1, 4), (1, 3), (0, 2))))
def test_causal_layouts_by_the_rules(instruction: int, items: int, tokens: int, response: int, sparse: bool) -> None:
    parts = Parts(instruction=instruction, items=items, tokens=tokens, response=response, queries=tokens)
    for prefixes in ([items], list(range(1, items + 1))):
        layout = causal_layout(parts, prefixes, sparse=sparse)
        every = places(parts, prefixes)
        assert layout.mask.tolist() == [[sees(one, other, sparse) for other in every] for one in every]
        first = {"instruction": 0, "item": instruction, "response": instruction, "query": instruction + response}
        rises = {"instruction": 1, "item": 0, "response": 1, "query": 0}  # within a part, place by place
        assert layout.positions.tolist() == [first[p] + group + rises[p] * at for p, group, at in every]


def test_one_pass_shows_each_prefix_what_it_would_see_alone() -> None:
    parts = Parts(instruction=2, items=3, tokens=2, response=1, queries=2)
    together = causal_layout(parts, [1, 2, 3], sparse=True)
    for prefix in (1, 2, 3):
        alone = causal_layout(
            Parts(instruction=2, items=prefix, tokens=2, response=1, queries=2), [prefix], sparse=True
        )
        block = range(parts.history_end + (prefix - 1) * parts.block, parts.history_end + prefix * parts.block)
        kept = [*range(2 + prefix * 2), *block]
        assert_same(alone, Layout(together.mask[kept][:, kept], together.positions[kept]))
        left_out = [place for place in range(len(together.positions)) if place not in kept]
        assert not together.mask[kept][:, left_out].any()


def assert_same(one: Layout, other: Layout) -> None:
    assert one.mask.tolist() == other.mask.tolist()
    assert one.positions.tolist() == other.positions.tolist()


def test_a_history_without_items_leaves_the_prompt_and_the_queries() -> None:
    layout = causal_layout(Parts(instruction=1, items=0, tokens=2, response=0, queries=2), [0], sparse=True)
    assert layout.mask.tolist() == drawn("x . .\n x x .\n x . x")
    assert layout.positions.tolist() == [0, 1, 1]


def test_an_encoder_sees_all_but_siblings() -> None:
    parts = Parts(instruction=1, items=2, tokens=2, response=2, queries=2)
    layout = encoder_layout(parts, sparse=True)
    expected = drawn(
        """
        x x x x x x x
        x x . x x x x
        x . x x x x x
        x x x x . x x
        x x x . x x x
        x x x x x x x
        x x x x x x x
        """
    )
    assert layout.mask.tolist() == expected
    assert layout.positions.tolist() == [0, 1, 1, 2, 2, 3, 4]
    plain = encoder_layout(parts, sparse=False)
    assert plain.mask.all() and plain.positions.tolist() == layout.positions.tolist()


def test_queries_of_a_decoder_are_alone_and_stand_together() -> None:
    layout = identity_layout(3)
    assert torch.equal(layout.mask, torch.eye(3, dtype=torch.bool))
    assert layout.positions.tolist() == [0, 0, 0]
