"""What generators share: a saved model answers as the fitted one did, and a damaged one is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import methods
import protocols
from benchmark.method import Method, build_config, replace_nested
from benchmark.run import Run
from benchmark.types import Split
from methods.blocks.generator import Generator
from tests import toys

GENERATORS = [spec for spec in methods.lineup() if issubclass(methods.load(spec).cls, Generator)]


@cache
def world() -> Split:
    return protocols.load("loo").split(toys.lonely())


def build(spec: str) -> Method:
    entrant = methods.load(spec)
    config = replace_nested(build_config(entrant.cls, None, "smoke"), {"training": {"epochs": 2}})
    return entrant.cls(config, argument=entrant.argument, run=Run(seed=0))


@cache
def fitted(spec: str) -> Method:
    return build(spec).fit(world().train)


def test_there_are_generators() -> None:
    assert "tiger" in GENERATORS


@pytest.mark.parametrize("spec", GENERATORS)
def test_a_saved_model_answers_as_the_fitted_one(spec: str, tmp_path: Path) -> None:
    cases, path = world().test.cases, tmp_path / "deep" / "model.ckpt"
    before = fitted(spec).recommend(cases, 10)
    fitted(spec).save(path)
    again = build(spec).load(path, world().train)
    after = again.recommend(cases, 10)
    np.testing.assert_array_equal(after.items, before.items)
    np.testing.assert_array_equal(after.scores, before.scores)
    assert after.spend == before.spend
    assert again.parameters() == fitted(spec).parameters()
    assert again.training_report() == fitted(spec).training_report()


@pytest.mark.parametrize("spec", GENERATORS)
def test_a_damaged_model_is_refused_with_advice(spec: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    fitted(spec).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged; make it again with --overwrite always"):
        build(spec).load(path, world().train)
