"""Item vectors: ``lsa`` by hand and by law, zero rows where there is nothing to say, refusals in one sentence."""

import numpy as np
import pytest

from benchmark.run import Run
from methods.blocks import text_encoder
from methods.blocks.text_encoder import LSA, MINILM, encode_texts


def test_a_wrong_number_of_vectors_is_refused(monkeypatch):
    monkeypatch.setattr(text_encoder, "_lsa", lambda texts, run: np.ones((len(texts) - 1, 4)))
    with pytest.raises(ValueError, match=r"vectors for 3 texts.*--text-encoder lsa"):
        encode_texts(["", "a", "b", "c"], LSA, Run())


def test_what_is_all_but_zero_has_no_direction(monkeypatch):
    monkeypatch.setattr(text_encoder, "_lsa", lambda texts, run: np.array([[3.0, 4.0], [1e-9, 0.0]]))
    assert np.allclose(encode_texts(["", "a", "b"], LSA, Run()), [[0, 0], [0.6, 0.8], [0, 0]])


def test_lsa_is_the_same_from_run_to_run_and_puts_like_texts_together():
    texts = [
        "",
        *(f"red wool yarn number {i}" for i in range(20)),
        *(f"steel kitchen knife size {i}" for i in range(20, 40)),
    ]
    vectors = encode_texts(texts, LSA, Run(seed=1))
    assert (vectors == encode_texts(texts, LSA, Run(seed=2))).all()
    assert vectors.dtype == np.float32 and vectors.shape[1] <= text_encoder.LSA_WIDTH
    assert np.allclose(np.linalg.norm(vectors[1:], axis=1), 1, atol=1e-6)
    cosines = vectors[1:] @ vectors[1:].T
    assert cosines[:20, :20].min() > cosines[:20, 20:].max()


def test_lsa_cosines_are_those_of_tf_idf_where_nothing_is_cut():
    """Two texts of different words are at right angles, and one shared word of two brings them nearer."""
    vectors = encode_texts(["", "apple pear", "plum fig", "apple fig"], LSA, Run())
    cosines = vectors[1:] @ vectors[1:].T
    # Every word is in one text (weight r) or, apple and fig, in two (weight c): c^2 / (|.| |.|) by hand.
    rare, common = np.log(4 / 2) + 1, np.log(4 / 3) + 1
    expected = common**2 / np.sqrt(rare**2 + common**2) / np.sqrt(2 * common**2)
    assert abs(cosines[0, 1]) < 1e-5
    assert np.allclose([cosines[0, 2], cosines[1, 2]], expected, atol=1e-5)


@pytest.mark.parametrize(
    "texts",
    [
        ["", "one item"],
        ["", *["the same"] * 5],
        ["", "a", "b", "c"],
        ["", "the", "of and"],
        ["", "!!!", "???", "!?"],
        ["", "🙂", "🙃 🙂"],
        ["", "", "only this", ""],
    ],
)
def test_lsa_works_for_odd_texts(texts):
    vectors = encode_texts(texts, LSA, Run())
    described = np.array([bool(text) for text in texts])
    assert np.allclose(np.linalg.norm(vectors, axis=1), described, atol=1e-6)


def test_lsa_keeps_its_width_limit():
    random = np.random.default_rng(0)
    texts = ["", *(" ".join(f"w{i}" for i in random.integers(0, 900, 12)) for _ in range(400))]
    assert encode_texts(texts, LSA, Run()).shape == (401, text_encoder.LSA_WIDTH)


@pytest.mark.parametrize("spec", [LSA, MINILM])
@pytest.mark.parametrize("texts", [["", "", " "], ["named", ""], [""]])
def test_no_text_at_all_is_refused(texts, spec):
    with pytest.raises(ValueError, match="no item has a text; choose a dataset with"):
        encode_texts(texts, spec, Run())
