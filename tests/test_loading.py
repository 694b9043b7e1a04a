"""How names become methods: rooms by file name, files from outside, and the sentence for every wrong name."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import methods
import protocols
from benchmark.evaluate import check
from benchmark.types import Budget
from methods.itemknn import ItemKNN
from methods.recbole import RecBole
from methods.recbole.sequential import SASRec
from tests import toys

EXTERNAL = '''
"""Newest: everybody gets the items with the highest id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.lists import top_k
from benchmark.method import Method
from benchmark.types import Ranking, Spend


class Newest(Method):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        sign: int = 1

    presets = {"oldest": {"sign": -1}}

    def fit(self, view):
        self.scores = self.config.sign * np.arange(view.n_items + 1, dtype=np.float32)
        return self

    def recommend(self, cases, k, *, candidates=None, budget=None):
        items, scores = top_k(np.tile(self.scores, (len(cases), 1)), k, cases.tie_order)
        return Ranking(cases.users, items, scores, Spend(rule="scores", items_scored=len(self.scores) - 1))


METHOD = Newest
'''


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    path = tmp_path / "newest.py"
    path.write_text(EXTERNAL)
    return path


def refusal(spec: object) -> str:
    """What ``load`` says, which must be one sentence."""
    with pytest.raises(ValueError) as error:
        methods.load(str(spec))
    text = str(error.value)
    assert "\n" not in text
    return text


def test_rooms_are_the_files_of_the_folder() -> None:
    files = {path.stem for path in Path(methods.__file__).parent.glob("[!_]*.py")}
    assert files <= set(methods.names())
    assert {"popularity", "markov", "itemknn", "recbole"} <= set(methods.names())
    assert methods.names() == sorted(methods.names())
    assert not {"blocks", "audits"} & set(methods.names())


def test_listing_names_does_not_import_torch() -> None:
    code = "import sys, methods; assert methods.names(); sys.exit('torch' in sys.modules)"
    root = Path(methods.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_every_name_of_the_lineup_loads_under_itself() -> None:
    lineup = methods.lineup()
    assert [methods.load(name).name for name in lineup] == lineup
    assert len(set(lineup)) == len(lineup)
    assert {"recbole:GRU4Rec", "itemknn", "itemknn@drop-seen"} <= set(lineup)


def test_argument_and_preset_are_read() -> None:
    one = methods.load("itemknn@drop-seen")
    assert (one.cls, one.argument, one.preset, one.source) == (ItemKNN, None, "drop-seen", None)
    two = methods.load("recbole:SASRec")
    assert (two.cls, two.argument, two.preset, two.name) == (SASRec, "SASRec", None, "recbole:SASRec")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("markow", "unknown method 'markow'; did you mean 'markov'?"),
        ("Popularity", "unknown method 'Popularity'; did you mean 'popularity'?"),
        ("recbole:sasrec", "unknown argument 'sasrec' of recbole; did you mean 'recbole:SASRec'?"),
        (
            "recbole",
            "recbole needs an argument; write one of " + ", ".join(f"recbole:{name}" for name in RecBole.arguments),
        ),
        ("markov:x", "markov takes no argument; write 'markov' instead of 'markov:x'"),
        ("itemknn@dropseen", "unknown preset '@dropseen' of itemknn; did you mean '@drop-seen'?"),
        ("markov@fast", "unknown preset '@fast' of markov; known presets: none"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(spec: str, said: str) -> None:
    assert refusal(spec) == said


def test_a_name_near_to_nothing_is_answered_with_all_of_them() -> None:
    said = refusal("zzzzzz")
    assert said.startswith("unknown method 'zzzzzz'; known methods: ") and "markov, popularity" in said


@pytest.mark.parametrize("spec", ["", "@drop-seen", ":x", "itemknn@", "blocks", "__init__"])
def test_what_is_no_name_is_refused(spec: str) -> None:
    refusal(spec)


def test_a_file_from_outside_competes(newest: Path) -> None:
    world = protocols.load("loo").split(toys.conveyor())
    one = methods.load(str(newest))
    assert (one.name, one.preset, one.source) == ("newest", None, str(newest.resolve()))
    ranking = one.cls().fit(world.train).recommend(world.test.cases, 3)
    check(ranking, world.test.cases, world.train.n_items, 3, Budget(20, 20))
    np.testing.assert_array_equal(ranking.items[0], [30, 29, 28])
    assert methods.load(f"{newest}@oldest").name == "newest@oldest"


def test_a_file_from_outside_is_refused_with_a_reason(tmp_path: Path, newest: Path) -> None:
    def file(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    assert refusal(tmp_path / "nowhere.py") == f"there is no method file {tmp_path / 'nowhere.py'}; check the path"
    assert "has the name of the built-in method 'markov'" in refusal(file("markov.py", EXTERNAL))
    assert "defines no METHOD; end it with" in refusal(file("empty.py", "x = 1\n"))
    assert "not a subclass of benchmark.method.Method" in refusal(file("number.py", "METHOD = 3\n"))
    assert "not a subclass of benchmark.method.Method" in refusal(file("other.py", "METHOD = dict\n"))
    assert "cannot be imported: ModuleNotFoundError: No module named 'nonesuch'" in refusal(
        file("broken.py", "import nonesuch\n")
    )
    assert "cannot be imported: SyntaxError" in refusal(file("garbled.py", "def\n"))
    assert "cannot name a method" in refusal(file("two words.py", EXTERNAL))
    assert refusal(f"{newest}@old").endswith("did you mean '@oldest'?")
    assert "takes no argument" in refusal(f"{newest}:x")


class Installed:
    """Stands for an entry point of an installed package."""

    def __init__(self, name: str, value: object):
        self.name, self.value = name, value

    def load(self) -> object:
        return self.value


def test_an_installed_package_adds_a_room(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Installed("theirs", ItemKNN), Installed("wrong", dict)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    assert {"theirs", "wrong", "markov"} <= set(methods.names())
    assert methods.load("theirs@drop-seen").cls is ItemKNN
    assert "METHOD of entry point 'wrong'" in refusal("wrong")


def test_an_installed_package_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Installed("markov", ItemKNN)])
    with pytest.raises(ValueError, match="takes the name 'markov' of a built-in method"):
        methods.names()
