"""Semantic ids: codes, tokens and trie agree with a dictionary, repairs keep their laws, reports match hand counts."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.datasets import load
from benchmark.lists import tie_order
from methods.blocks.collisions import dedup_digit, repair_nearest_free, repair_sinkhorn
from methods.blocks.semantic_ids import FIRST_CODE, PAD_TOKEN, SemanticIds, Trie, number_prefixes
from tests.beam_world import letter_ids

unhurried = settings(deadline=None)  # no test fails because the machine is busy


def make_codes(*rows: tuple[int, ...]) -> np.ndarray:
    """Codes of items 1.. under the row of PAD."""
    return np.array([(-1,) * len(rows[0]), *rows])


@st.composite
def worlds(draw: st.DrawFn) -> SemanticIds:
    """1 to 30 items on 1 to 4 levels of 1 to 6 codes: few enough that prefixes and whole codes are shared."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_items = draw(st.integers(1, 30))
    codes = np.full((n_items + 1, len(sizes)), -1)
    codes[1:] = random.integers(0, sizes, (n_items, len(sizes)))
    return SemanticIds(codes, sizes)


def dictionary_trie(ids: SemanticIds, items: list[int]) -> list[dict[tuple[int, ...], list[int]]]:
    """For every depth: prefix -> items that start with it, prefixes in lexicographic order."""
    depths = []
    for depth in range(ids.levels + 1):
        found = defaultdict(list)
        for item in items:
            found[tuple(ids.codes[item, :depth].tolist())].append(item)
        depths.append(dict(sorted(found.items())))
    return depths


def expected_children(ids: SemanticIds, items: list[int], depth: int) -> np.ndarray:
    """(nodes + 1, size) children by dictionary look-up; the last row answers node -1."""
    depths = dictionary_trie(ids, items)
    place = {prefix: number for number, prefix in enumerate(depths[depth + 1])}
    rows = [[place.get((*prefix, code), -1) for code in range(ids.sizes[depth])] for prefix in depths[depth]]
    return np.array([*rows, [-1] * ids.sizes[depth]])


def assert_equals_dictionary(trie: Trie, ids: SemanticIds, items: list[int], ties: np.ndarray) -> None:
    depths = dictionary_trie(ids, items)
    assert trie.nodes_at == tuple(len(prefixes) for prefixes in depths)
    for depth in range(ids.levels):
        every = torch.arange(-1, trie.nodes_at[depth]).roll(-1)[:, None]  # (nodes + 1, 1), -1 last
        found = trie.children(depth, every)[:, 0]
        np.testing.assert_array_equal(found.numpy(), expected_children(ids, items, depth))
        above = {prefix: number for number, prefix in enumerate(depths[depth])}
        assert trie.nodes[depth].parents.tolist() == [above[prefix[:-1]] for prefix in depths[depth + 1]]
        assert trie.nodes[depth].codes.tolist() == [prefix[-1] for prefix in depths[depth + 1]]
    leaves = {item: leaf for leaf, group in enumerate(depths[-1].values()) for item in group}
    assert trie.leaf_of_item(ids.n_items).tolist() == [leaves.get(item, -1) for item in range(ids.n_items + 1)]
    table = trie.leaf_table(ties, at_most=len(ids.codes))
    rows = [[item for item in row if item] for row in table.tolist()]
    assert rows == [sorted(group, key=lambda item: ties[item]) for group in depths[-1].values()]
    assert table.shape == (trie.n_leaves, max(map(len, rows)))


# --- codes and tokens ------------------------------------------------------------------------------------------------


def test_tokens_by_hand():
    ids = SemanticIds(make_codes((0, 3, 1), (2, 0, 0)), (3, 4, 2))
    assert (ids.levels, ids.n_items, ids.vocab_size) == (3, 2, FIRST_CODE + 9)
    assert [ids.level(level) for level in range(3)] == [slice(2, 5), slice(5, 9), slice(9, 11)]
    assert ids.token_table("cpu").tolist() == [[PAD_TOKEN] * 3, [2, 8, 10], [4, 5, 9]]
    assert ids.tokens(torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5, 9], [0, 0, 0]], [[2, 8, 10], [2, 8, 10]]]
    assert ids.token_table("cpu") is ids.token_table(torch.device("cpu"))


@unhurried
@given(worlds())
def test_levels_share_no_token_and_tokens_give_the_codes_back(ids):
    tokens = ids.token_table("cpu").numpy()
    for level in range(ids.levels):
        columns = ids.level(level)
        assert columns.start == (ids.level(level - 1).stop if level else FIRST_CODE)
        np.testing.assert_array_equal(tokens[1:, level] - columns.start, ids.codes[1:, level])
        assert (tokens[1:, level] < columns.stop).all()
    assert ids.level(ids.levels - 1).stop == ids.vocab_size


@pytest.mark.parametrize(
    ("codes", "sizes", "said"),
    [
        (make_codes((0, 1), (0, 4)), (3, 4), "item 2 has code 4 at level 2; codes of that level are 0 to 3"),
        (
            make_codes(
                (0, -1),
            ),
            (3, 4),
            "item 1 has code -1 at level 2",
        ),
        (
            make_codes(
                (0, 1),
            ),
            (3, 4, 5),
            "do not fit 3 levels",
        ),
        (np.array([0, 1]), (3,), "do not fit 1 levels"),
        (
            make_codes(
                (0, 1),
            )[:1],
            (3, 4),
            "one row per item after a row for PAD",
        ),
        (np.array([(0, 1), (1, 1)]), (3, 4), "row 0 of the codes belongs to PAD"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, sizes, said):
    with pytest.raises(ValueError, match=said):
        SemanticIds(codes, sizes)


@unhurried
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 100_000), st.integers(0, 10_000))
def test_prefixes_are_numbered_in_lexicographic_order(rows, levels, size, seed):
    codes = np.random.default_rng(seed).integers(max(0, size - 3), size, (rows, levels))
    numbers = number_prefixes(codes)
    for depth in range(levels + 1):
        prefixes = [tuple(row[:depth]) for row in codes.tolist()]
        place = {prefix: number for number, prefix in enumerate(sorted(set(prefixes)))}
        assert numbers[:, depth].tolist() == [place[prefix] for prefix in prefixes]


# --- the trie --------------------------------------------------------------------------------------------------------


@unhurried
@given(worlds(), st.integers(0, 100), st.booleans())
def test_trie_equals_a_dictionary(ids, seed, dense):
    items = list(range(1, ids.n_items + 1))
    trie = ids.trie(dense_up_to=10**6 if dense else 0)
    assert_equals_dictionary(trie, ids, items, tie_order(ids.n_items, seed))


@unhurried
@given(worlds(), st.data(), st.booleans())
def test_restricted_trie_holds_the_candidates_only(ids, data, dense):
    candidates = data.draw(st.lists(st.integers(1, ids.n_items), min_size=1))
    trie = ids.trie(np.array(candidates), dense_up_to=10**6 if dense else 0)
    assert_equals_dictionary(trie, ids, sorted(set(candidates)), tie_order(ids.n_items, 1))


@unhurried
@given(worlds(), st.data())
def test_dense_and_compressed_rows_answer_alike(ids, data):
    dense, compressed = ids.trie(dense_up_to=10**6), ids.trie(dense_up_to=0)
    depth = data.draw(st.integers(0, ids.levels - 1))
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    nodes = torch.from_numpy(np.random.default_rng(0).integers(-1, dense.nodes_at[depth], shape))
    expected, found = dense.children(depth, nodes), compressed.children(depth, nodes)
    assert found.dtype == expected.dtype and found.shape == (*shape, ids.sizes[depth])
    assert torch.equal(expected, found)
    assert (expected[nodes < 0] == -1).all()


@unhurried
@given(worlds())
def test_every_item_is_reached_by_its_tokens(ids):
    trie = ids.trie()
    table = trie.leaf_table(tie_order(ids.n_items, 0), ids.n_items)
    tokens = ids.tokens(torch.arange(1, ids.n_items + 1))  # (N, L)
    nodes = torch.zeros(ids.n_items, 1, dtype=torch.long)
    for depth in range(ids.levels):
        step = tokens[:, depth, None, None] - ids.level(depth).start
        nodes = trie.children(depth, nodes).gather(2, step)[..., 0].long()
    for item, leaf in enumerate(nodes[:, 0].tolist(), start=1):
        same = (ids.codes == ids.codes[item]).all(1).nonzero()[0].tolist()
        assert sorted(i for i in table[leaf].tolist() if i) == same


def test_twins_share_a_leaf_in_tie_order_up_to_the_length_of_a_list():
    ids = SemanticIds(make_codes((1, 1), (0, 1), (1, 1), (1, 1)), (2, 2))
    ties = np.array([9, 3, 0, 1, 2])
    trie = ids.trie()
    assert trie.n_leaves == 2
    assert trie.leaf_table(ties, 10).tolist() == [[2, 0, 0], [3, 4, 1]]
    assert trie.leaf_table(ties, 2).tolist() == [[2, 0], [3, 4]]
    assert trie.leaf_table(ties, 1).tolist() == [[2], [3]]


def test_tables_are_compressed_above_the_given_number_of_nodes():
    ids = SemanticIds(make_codes(*((a, b) for a in range(4) for b in range(3))), (4, 50))
    assert ids.trie(dense_up_to=5).nbytes == 4 * (2 * 4 + 5 * 50)  # 1 + 4 nodes above the leaves
    assert ids.trie(dense_up_to=4).nbytes < ids.trie(dense_up_to=5).nbytes / 2


@pytest.mark.parametrize(
    ("candidates", "said"), [([], "empty"), ([0, 1], "candidate 0 is no item"), ([2, 4], "candidate 4 is no item")]
)
def test_candidates_that_are_no_items_are_refused(candidates, said):
    with pytest.raises(ValueError, match=said):
        SemanticIds(make_codes((0,), (1,), (1,)), (2,)).trie(np.array(candidates, int))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dense_up_to", [0, 10**6])
def test_children_never_wait_for_the_device(dense_up_to):
    random = np.random.default_rng(0)
    codes = np.concatenate([np.full((1, 3), -1), random.integers(0, 20, (500, 3))])
    ids = SemanticIds(codes, (20, 20, 20))
    trie, on_cpu = ids.trie(device="cuda", dense_up_to=dense_up_to), ids.trie()
    nodes = torch.from_numpy(random.integers(-1, trie.nodes_at[2], (7, 5)))
    on_device = nodes.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = trie.children(2, on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found.cpu(), on_cpu.children(2, nodes))


# --- collisions ------------------------------------------------------------------------------------------------------


@st.composite
def colliding(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes on two levels, what the last level quantised and its codebook; each code is the nearest, as read out."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_items, n_codes = draw(st.integers(1, 25)), draw(st.integers(2, 8))
    codebook = random.normal(size=(n_codes, 2)).astype(np.float32)
    residuals = random.normal(size=(n_items + 1, 2)).astype(np.float32)
    for twin in range(2, n_items + 1, 5):  # exact twins
        residuals[twin] = residuals[twin - 1]
    nearest = ((residuals[:, None] - codebook) ** 2).sum(2).argmin(1)
    codes = np.stack([random.integers(0, 3, n_items + 1), nearest], axis=1)
    codes[0] = -1
    return codes, residuals, codebook


def groups_of(codes: np.ndarray) -> Counter[tuple[int, ...]]:
    return Counter(map(tuple, codes[1:].tolist()))


@pytest.mark.parametrize("repair", [repair_sinkhorn, repair_nearest_free])
@settings(max_examples=40, deadline=None)
@given(world=colliding())
def test_repairs_touch_only_the_last_code_of_colliding_items(repair, world):
    codes, residuals, codebook = world
    before = codes.copy()
    repaired = repair(codes, residuals, codebook)
    np.testing.assert_array_equal(codes, before)
    np.testing.assert_array_equal(repaired[:, :-1], codes[:, :-1])
    counts = groups_of(codes)
    alone = np.array([True, *(counts[tuple(row)] == 1 for row in codes[1:].tolist())])
    if repair is repair_nearest_free:  # Sinkhorn may land on a lonely item's code and then moves both
        np.testing.assert_array_equal(repaired[alone], codes[alone])
    if alone.all():
        np.testing.assert_array_equal(repaired, codes)
    assert repaired[0].tolist() == [-1, -1]
    assert ((repaired[1:, -1] >= 0) & (repaired[1:, -1] < len(codebook))).all()
    np.testing.assert_array_equal(repair(codes, residuals, codebook), repaired)


@unhurried
@given(colliding())
def test_nearest_free_leaves_no_collision_while_a_code_is_free(world):
    codes, residuals, codebook = world
    repaired = repair_nearest_free(codes, residuals, codebook)
    for prefix, n_items in Counter(codes[1:, 0].tolist()).items():
        of_prefix = repaired[1:][codes[1:, 0] == prefix, 1]
        assert len(set(of_prefix.tolist())) == min(n_items, len(codebook))


def test_nearest_free_by_hand():
    # Codes at 0, 1, 2, 3 and 10 on a line. Items 1 to 3 share (0, 1), item 4 has (0, 2), item 5 (1, 1).
    codebook = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    codes = make_codes((0, 1), (0, 1), (0, 1), (0, 2), (1, 1))
    residuals = np.array([[0.0], [1.4], [1.1], [1.3], [2.0], [1.4]])
    # Item 2 is nearest to the code and keeps it. Item 3 is nearer than item 1 and chooses first: code 2 is taken, so 0
    # (1.3 away) before 3. Item 1 finds 0 and 2 taken and gets 3. Item 5 has another prefix and is alone.
    assert repair_nearest_free(codes, residuals, codebook)[1:, 1].tolist() == [3, 1, 0, 2, 1]


def test_nearest_free_leaves_what_finds_no_free_code():
    codebook, residuals = np.array([[0.0], [1.0]]), np.array([[0.0], [0.9], [0.8], [0.7]])
    repaired = repair_nearest_free(make_codes((0, 1), (0, 1), (0, 1)), residuals, codebook)
    assert repaired[1:, 1].tolist() == [1, 0, 1]  # the first stays, the second takes code 0, nothing is left


def test_sinkhorn_splits_a_group_and_its_newcomers():
    # Two items left and right of code 0: the plan gives each the code on its own side.
    codebook = np.array([[0.0], [-1.0], [1.0]])
    codes = make_codes((0, 0), (0, 0), (1, 0))
    repaired = repair_sinkhorn(codes, np.array([[0.0], [-0.3], [0.3], [0.1]]), codebook)
    assert repaired[1:].tolist() == [[0, 1], [0, 2], [1, 0]]


def test_sinkhorn_stops_after_the_given_rounds_and_resolves_most_groups():
    random = np.random.default_rng(0)
    codebook, residuals = random.normal(size=(64, 8)), random.normal(size=(201, 8))
    nearest = ((residuals[:, None] - codebook) ** 2).sum(2).argmin(1)
    codes = np.stack([np.arange(201) % 10, nearest], axis=1)
    codes[0] = -1
    distinct = [len(groups_of(repair_sinkhorn(codes, residuals, codebook, rounds=rounds))) for rounds in (0, 1, 20)]
    assert distinct[0] == len(groups_of(codes)) < distinct[1] <= distinct[2]
    assert distinct[2] >= 195


def test_twins_with_one_residual_stay_together_under_sinkhorn_and_are_split_by_the_nearest_free_code():
    random = np.random.default_rng(0)
    codebook = random.normal(size=(8, 3))
    residuals = np.repeat(random.normal(size=(1, 3)), 3, axis=0)
    nearest = int(((residuals[0] - codebook) ** 2).sum(1).argmin())
    codes = make_codes((0, nearest), (0, nearest))
    np.testing.assert_array_equal(repair_sinkhorn(codes, residuals, codebook), codes)
    by_distance = ((residuals[0] - codebook) ** 2).sum(1).argsort()
    assert repair_nearest_free(codes, residuals, codebook)[1:, 1].tolist() == by_distance[:2].tolist()


def test_dedup_digit_by_hand():
    digits = dedup_digit(make_codes((5, 1), (0, 1), (5, 1), (5, 0), (5, 1)))
    assert digits.tolist() == [[-1] * 3, [5, 1, 0], [0, 1, 0], [5, 1, 1], [5, 0, 0], [5, 1, 2]]


# --- the report ------------------------------------------------------------------------------------------------------


def test_report_by_hand():
    ids = SemanticIds(make_codes((0, 0), (0, 0), (0, 1), (1, 1)), (4, 2))
    found = ids.report(np.array([0, 1, 1, 2, 2]))
    assert json.loads(json.dumps(found)) == found
    levels = found.pop("levels")
    assert found == {
        "items": 4,
        "distinct_codes": 3,
        "collision_rate": 0.25,
        "largest_group": 2,
        "largest_first_level_bucket": 3,
        "distinct_prefixes": [2, 3],
        # Of the pairs 12, 13, 23 under code 0 only 12 agrees; of all six pairs 12 and 34 do.
        "category_agreement": {"by_prefix_length": [1 / 3], "chance": 2 / 6},
    }
    assert [(level["size"], level["used"]) for level in levels] == [(4, 2), (2, 2)]
    uneven = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert [level["perplexity"] for level in levels] == pytest.approx([uneven, 2.0])


def test_report_without_pairs_says_none():
    ids = SemanticIds(make_codes((0, 0), (1, 0)), (2, 1))
    assert ids.report(np.array([0, 1, 0]))["category_agreement"] == {"by_prefix_length": [None], "chance": None}
    assert "category_agreement" not in ids.report()


@unhurried
@given(worlds(), st.integers(0, 1000))
def test_category_agreement_equals_counting_pairs(ids, seed):
    labels = np.random.default_rng(seed).integers(0, 4, ids.n_items + 1)
    found = ids.report(labels)["category_agreement"]
    labelled = [item for item in range(1, ids.n_items + 1) if labels[item]]
    for length in range(ids.levels):
        pairs = [p for p in combinations(labelled, 2) if (ids.codes[p[0], :length] == ids.codes[p[1], :length]).all()]
        share = np.mean([labels[a] == labels[b] for a, b in pairs]) if pairs else None
        assert (found["by_prefix_length"][length - 1] if length else found["chance"]) == pytest.approx(share)


def test_published_ids_of_beauty():
    ids = letter_ids()
    if ids is None:
        pytest.skip("$GENREC_DATA holds no published semantic ids")
    data = load("amazon14-beauty", None)
    report = ids.report(data.categories)
    assert (report["items"], report["distinct_codes"]) == (12_101, 12_088)
    trie = ids.trie()
    assert trie.nodes_at == (1, 197, 7_931, 11_696, 12_088)
    assert report["distinct_prefixes"] == list(trie.nodes_at[1:])
    assert report["levels"][0]["used"] == 197
    assert trie.nbytes == (1 + 197 + 7_931 + 11_696 + ids.levels) * 256 * 4  # 20.3 MB
    assert ids.trie(dense_up_to=0).nbytes < 0.5e6
    agreement = report["category_agreement"]
    assert agreement["by_prefix_length"] == sorted(agreement["by_prefix_length"])
    assert agreement["by_prefix_length"][0] > 2 * agreement["chance"]
    twins = trie.leaf_table(tie_order(ids.n_items, 0), 20)
    assert int((twins > 0).sum()) == 12_101 and twins.shape[1] == report["largest_group"]
