"""Row alignment: true rows of item vectors pass, rows that belong to other items are refused."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmark import datasets
from benchmark.datasets.text import category_codes
from benchmark.run import Run
from methods.blocks import alignment
from methods.blocks.alignment import check_alignment
from methods.blocks.text_encoder import LSA, encode_texts


def shuffled(vectors, seed):
    return np.concatenate([vectors[:1], np.random.default_rng(seed).permutation(vectors[1:])])


def turned(vectors, places):
    return np.concatenate([vectors[:1], np.roll(vectors[1:], places, 0)])


def check_that_only_true_rows_pass(dataset):
    labels = category_codes(dataset.item_fields)
    vectors = encode_texts(dataset.item_text, LSA, Run())
    lift = check_alignment(vectors, labels)
    wrong = [*(shuffled(vectors, seed) for seed in range(5)), *(turned(vectors, n) for n in (-3, -2, -1, 1, 2, 3))]
    wrong.append(np.concatenate([vectors[1:], vectors[:1]]))  # rows counted from 0
    for rows in wrong:
        with pytest.raises(ValueError, match="do not belong to their items"):
            check_alignment(rows, labels)
    return lift


def test_true_rows_pass_the_alignment_check_and_wrong_ones_do_not():
    assert check_that_only_true_rows_pass(datasets.load("demo", None)) > 5


@pytest.mark.parametrize(("name", "least"), [("amazon14-beauty", 3.5), ("amazon14-toys", 9)])
def test_real_rows_pass_the_alignment_check_and_wrong_ones_do_not(name, least):
    root = os.environ.get("GENREC_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"$GENREC_DATA holds no {name}")
    assert check_that_only_true_rows_pass(datasets.load(name, None)) > least


def islands(counts, seed=0):
    """Vectors that lie around one direction per label, and the labels; row 0 is PAD."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    vectors = np.eye(len(counts) + 5)[labels] + 0.05 * random.normal(size=(len(labels), len(counts) + 5))
    return np.concatenate([np.zeros((1, len(counts) + 5)), vectors]), np.concatenate([[0], labels + 1])


def test_the_lift_is_the_agreement_over_its_expectation():
    vectors, labels = islands([100, 60, 40])
    expected = (100 * 99 + 60 * 59 + 40 * 39) / (200 * 199)
    assert check_alignment(vectors, labels) == pytest.approx(1 / expected)
    assert check_alignment(vectors * np.arange(201)[:, None], labels) == pytest.approx(1 / expected)  # cosine


def test_one_large_category_leaves_room_for_the_verdict():
    vectors, labels = islands([900, 100])
    assert 1.1 < check_alignment(vectors, labels) < 1.3
    with pytest.raises(ValueError, match="by chance"):
        check_alignment(shuffled(vectors, 1), labels)


def test_a_few_true_rows_do_not_carry_the_rest():
    vectors, labels = islands([1000, 500, 500])
    wrong = shuffled(vectors, 1)
    wrong[1:901] = vectors[1:901]  # 45 % in their place: many standard errors above chance
    with pytest.raises(ValueError, match="do not belong"):
        check_alignment(wrong, labels)


def test_rows_that_slipped_by_one_are_refused_where_neighbours_by_id_are_alike():
    """Runs of four like items: a slip leaves three of four rows right, far above chance."""
    vectors, _ = islands([1] * 300)
    labels = np.concatenate([[0], np.repeat(np.arange(300) // 10 + 1, 4)])
    centres = np.random.default_rng(0).normal(size=(31, 20))
    vectors = centres[labels] + 0.05 * np.random.default_rng(1).normal(size=(len(labels), 20))
    assert check_alignment(vectors, labels) > 20
    for places in (1, -1):
        with pytest.raises(ValueError, match="slipped by one"):
            check_alignment(turned(vectors, places), labels)


def test_rows_without_a_label_or_a_vector_are_left_out():
    vectors, labels = islands([100, 60, 40])
    expected = check_alignment(vectors, labels)
    silent = np.concatenate([vectors, np.zeros((50, 8)), np.ones((50, 8))])
    assert check_alignment(silent, np.concatenate([labels, np.ones(50, int), np.zeros(50, int)])) == expected


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros(301, int),
        np.r_[0, np.ones(300, int)],
        np.arange(301),
        np.r_[0, np.arange(50) % 2 + 1, np.zeros(250, int)],
        np.r_[0, np.ones(299, int), 2],
    ],
    ids=["no label", "one label", "all different", "too few", "nearly all the same"],
)
def test_where_nothing_can_be_told_the_lift_is_nan(labels):
    vectors = np.random.default_rng(0).normal(size=(301, 8))
    assert np.isnan(check_alignment(vectors, labels))


def test_identical_vectors_tell_nothing():
    assert np.isnan(check_alignment(np.r_[np.zeros((1, 4)), np.ones((300, 4))], np.arange(301) % 3))


def test_other_numbers_of_rows_are_refused():
    with pytest.raises(ValueError, match="10 vectors for 11 rows"):
        check_alignment(np.ones((10, 2)), np.ones(11, int))


def test_the_sample_of_a_large_catalogue_is_fixed_and_looks_at_all_items():
    vectors, labels = islands([3000, 2000, 1000])
    assert check_alignment(vectors, labels) == check_alignment(vectors, labels) > 2
    asked = np.sort(np.random.default_rng(0).choice(np.arange(1, 6001), 300, replace=False))
    nearest = alignment._nearest(vectors, np.arange(1, 6001), asked)
    unit = vectors[1:] / np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    cosines = unit[asked - 1] @ unit.T
    cosines[np.arange(300), asked - 1] = -2
    assert (nearest == cosines.argmax(1) + 1).all()
