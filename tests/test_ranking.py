"""The device top-k obeys the same law as the numpy one, ties and holes included."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmark import lists
from benchmark.run import Run
from benchmark.types import Cases, Sequences, Spend
from methods.blocks.ranking import rank_by_score, top_k


@given(
    rows=st.integers(1, 5),
    items=st.integers(1, 12),
    k=st.integers(1, 15),
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([1, 2, 3, 50]),
)
def test_device_top_k_equals_the_numpy_one(rows, items, k, seed, levels):
    random = np.random.default_rng(seed)
    scores = random.integers(-levels, levels + 1, (rows, items + 1)).astype(np.float32)
    scores[random.random(scores.shape) < 0.2] = -np.inf
    scores[random.random(scores.shape) < 0.1] = -0.0
    scores[:, 0] = -np.inf
    ties = lists.tie_order(items, seed)
    expected = lists.top_k(scores, k, ties)
    found = top_k(torch.from_numpy(scores), k, torch.from_numpy(ties))
    np.testing.assert_array_equal(found[0].numpy(), expected[0])
    np.testing.assert_array_equal(found[1].numpy(), expected[1])


def test_rank_by_score_keeps_the_order_of_the_cases_and_the_candidates():
    histories = Sequences.from_rows([[3, 1], [2], [1, 2, 3]])
    cases = Cases(np.array([7, 8, 9], np.int32), histories, histories, lists.tie_order(4, 0))

    def score(part):  # item i scores user * i, so the best item is the highest candidate
        return torch.from_numpy(part.users[:, None] * np.arange(5)[None, :].astype(np.float32))

    ranking = rank_by_score(
        score, cases, 3, run=Run(), spend=Spend("scores", 2), candidates=np.array([2, 4]), batch_size=2
    )
    np.testing.assert_array_equal(ranking.items, [[4, 2, 0]] * 3)
    np.testing.assert_array_equal(ranking.scores[:, 0], [28, 32, 36])
    assert np.isneginf(ranking.scores[:, 2]).all()
