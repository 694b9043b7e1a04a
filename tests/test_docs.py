"""The documentation is true: links resolve, commands parse, names exist, and its programs run."""

from __future__ import annotations

import csv
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import methods
import protocols
import run_all
from benchmark import cli, datasets, records
from benchmark.datasets.catalogue import resolve
from benchmark.method import build_config
from benchmark.run import Run
from leaderboards.foreign.sidecar import PREFIX

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOOR = "python run_all.py"
LONGEST_METHOD = 60
"""Lines of the method that ``add-a-method.md`` builds."""


def name_of(path: Path) -> str:
    return path.name


def anchors(path: Path) -> set[str]:
    """What ``page.md#...`` may lead to, as GitHub names headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(path: Path) -> list[list[str]]:
    """Arguments of every call of the door, in blocks and in running text, without those that show flags in brackets."""
    text = path.read_text().replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.M | re.S))
    lines = [part for line in blocks.splitlines() for part in line.split("&&")]
    outside = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", outside)]
    calls = [line.strip() for line in lines if re.match(rf"\s*{DOOR}(\s|$)", line)]
    return [shlex.split(call.removeprefix(DOOR), comments=True) for call in calls]


def programs(page: str) -> list[str]:
    """The Python blocks that a page marks as run by a test."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"<!-- a test runs this file -->\n```python\n(.*?)```", text, re.S)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        page = (path.parent / place).resolve() if place else path
        assert page.exists(), f"{path.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(page), f"{path.name} links to {target}, which has no such heading"
    for mentioned in re.findall(
        r"`((?:docs|methods|protocols|benchmark|leaderboards|tests)/[\w./-]+\.(?:md|py|csv|json|bib))`", text
    ):
        assert (ROOT / mentioned).exists(), f"{path.name} mentions {mentioned}, which is not there"


def test_every_page_is_in_the_list_of_pages():
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/quickstart.md").read_text()))
    assert listed | {"quickstart.md"} == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_command_parses_and_names_what_exists(path: Path):
    for argv in commands(path):
        try:
            args = cli.parse(argv)
        except SystemExit:
            pytest.fail(f"{path.name}: '{DOOR} {' '.join(argv)}' is no command")
        for spec in getattr(args, "methods", None) or []:
            assert spec.partition("@")[0].endswith(".py") or methods.load(spec)
        for dataset in getattr(args, "datasets", None) or []:
            assert "/" in dataset or resolve(dataset)
        assert getattr(args, "protocol", "loo") in protocols.names()


def test_the_collector_of_commands_finds_them():
    found = commands(ROOT / "docs" / "quickstart.md")
    assert ["--methods", "popularity,markov,sasrec"] in found and ["verify", "results"] in found and [] in found
    assert all(commands(ROOT / "docs" / f"{page}.md") for page in ("add-a-method", "add-a-dataset", "reproduce-a-row"))


@pytest.mark.parametrize("protocol", protocols.names())
def test_every_rule_has_its_reason(protocol: str):
    rows = re.findall(r"^\| (`.*?) \|.*\| (.+) \|$", (ROOT / "docs/protocols.md").read_text(), re.M)
    explained = {name for names, why in rows if why.strip() for name in re.findall(r"`(\w+)`", names)}
    assert set(protocols.load(protocol).rules) <= explained


def test_the_rows_in_the_readme_are_those_of_the_published_table():
    shown = re.search(r"<!-- a test compares these rows .*?-->\n(.*?)\n\n", (ROOT / "README.md").read_text(), re.S)
    assert shown
    header, _, *rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in shown[1].splitlines()]
    with open(ROOT / "leaderboards/published/tables/loo/unified-small/amazon14-beauty.csv", newline="") as file:
        published = {row["method"]: row for row in csv.DictReader(file)}
    wanted = [[name, *(f"{float(published[name][metric]):.4f}" for metric in header[1:])] for name, *_ in rows]
    assert rows == wanted and {published[name]["seed"] for name, *_ in rows} == {"0"}
    assert rows == sorted(rows, key=lambda row: int(published[row[0]]["rank"]))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in ("GENREC_DATA", "GENREC_TEXT_ENCODER", "GENREC_LANGUAGE_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_the_method_of_the_page_runs_outside_the_repository_is_verified_and_shown(elsewhere: Path, capsys):
    program, _, _ = programs("add-a-method.md")
    assert len(program.splitlines()) <= LONGEST_METHOD
    (elsewhere / "skip.py").write_text(program)
    assert methods.load("./skip.py@next").name == "skip@next"
    assert run_all.main(["--methods", "./skip.py", "--limit-users", "300", "--jobs", "1"]) == 0
    assert run_all.main(["verify", "results"]) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out
    table = next((elsewhere / "results/leaderboards").rglob("demo.md")).read_text()
    assert re.search(r"^\| +1 \| skip +\|", table, re.M)


def test_the_learned_method_of_the_page_learns_and_repeats_itself(elsewhere: Path):
    """Its validation rises beyond the first epoch's, answers are items 1..N, and one seed gives one ranking."""
    _, program, _ = programs("add-a-method.md")
    assert len(program.splitlines()) <= LONGEST_METHOD
    (elsewhere / "bag.py").write_text(program)
    entrant = methods.load("./bag.py")
    view = protocols.load("loo").split(datasets.load("demo")).train
    config = build_config(entrant.cls, None, "smoke")
    config = replace(config, width=16, training=replace(config.training, epochs=3))
    cases = view.valid.cases.take(np.arange(50))
    fitted = [entrant.cls(config, run=Run(seed=seed)).fit(view) for seed in (3, 3, 4)]
    first, again, other = (method.recommend(cases, 20, candidates=np.arange(1, 31)).items for method in fitted)
    assert set(first.ravel()) <= set(range(1, 31)) and all(len(set(row)) == 20 for row in first)
    assert (first == again).all() and (first != other).any()
    curve = [entry["valid"] for entry in fitted[0].training_report()["curve"]]
    assert max(curve) > curve[0] and fitted[0].parameters() == 2 * (view.n_items + 1) * config.width


def test_the_lists_of_the_page_are_imported_verified_and_shown(elsewhere: Path, capsys):
    _, _, program = programs("add-a-method.md")
    exec(compile(program, "lists.py", "exec"), {})
    assert run_all.main(["import", "lists.csv"]) == 0 and run_all.main(["verify", "results"]) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out
    (record,) = records.read_all(elsewhere / "results")
    assert record.method == f"{PREFIX}frequent" and 0 < record.metrics["recall@20"] < 1
