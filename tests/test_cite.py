"""What to cite, the other names of recall, and LaTeX that compiles as it is, whatever methods are called."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import methods
import protocols
from benchmark import metrics
from benchmark.datasets.catalogue import CATALOGUE
from benchmark.records import Record
from leaderboards import cite, tables
from leaderboards.layout import Section
from leaderboards.site.cards import known
from methods.blocks.backbones import SIZES

ROOT = Path(__file__).resolve().parent.parent
NEEDED = {
    "article": {"author", "title", "journal", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "misc": {"author", "title", "year"},
}
EVIL = "evil}@article{fake,\n title = {Fake}}\n% \\input{x} \u202e"


def fields_of(entry: str) -> dict[str, str]:
    return dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.M))


def parsed(text: str) -> Iterator[tuple[str, str]]:
    """(type, key) of every entry, found as BibTeX finds them: from any at-sign on, to the brace that closes it."""
    place = 0
    while (place := text.find("@", place)) >= 0:
        kind, key = re.match(r"@(\w+)\{([^,\s]+),", text[place:]).groups()  # type: ignore[union-attr]
        depth, start = 0, place
        for place in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0 and text[place] == "}":
                break
        assert depth == 0, f"the braces of {key} are not balanced"
        yield kind, key


def test_every_entry_is_whole_and_named_after_its_first_author_and_year():
    text = (ROOT / "leaderboards" / cite.FILE).read_text()
    assert text.isascii()  # BibTeX sorts and shortens bytes
    found = list(parsed(text))
    assert [key for _, key in found] == list(cite.entries()) and len(found) == len(set(found))
    for kind, key in found:
        fields = fields_of(cite.entries()[key])
        assert fields.keys() >= NEEDED[kind], key
        assert "and others" not in fields["author"] and "et al" not in fields["author"], key
        assert fields.keys() & {"doi", "eprint", "url", "pages", "note"}, f"nobody could find {key}"
        if fields["author"].startswith("{"):
            continue
        family = fields["author"].split(",")[0].lower()
        assert key.startswith(f"{re.sub('[^a-z]', '', family)}{fields['year']}"), key


def test_everything_of_the_suite_has_entries_and_every_entry_belongs_to_something():
    tables_of = (cite.METHODS, cite.DATASETS, cite.PROTOCOLS, cite.MODELS)
    used = {key for table in tables_of for keys in table.values() for key in keys}
    assert used | {cite.SUITE} == set(cite.entries())
    assert set(cite.DATASETS) == set(CATALOGUE) and set(cite.PROTOCOLS) == set(protocols.names())
    assert {name for name, size in SIZES.items() if size.hub} <= set(cite.MODELS)
    assert {spec.partition("@")[0].partition(":")[0] for spec in cite.METHODS} == set(methods.names())
    arguments = {f"recbole:{name}" for name in methods.load("recbole:Pop").cls.arguments}
    arguments |= {f"recbole:{name}" for name in methods._room("recbole").variants}
    assert arguments == {spec for spec in cite.METHODS if ":" in spec}
    assert all(cite.keys_of(spec) is not None for spec in methods.lineup())


def test_entries_agree_with_the_cards_of_the_site():
    for name, card in known()["methods"].items():
        if "Own construction" in card.get("paper", "") or not set(cite.keys_of(name) or ()) - {"zhao2021recbole"}:
            continue
        of_paper = [fields_of(cite.entries()[key]) for key in cite.keys_of(name) or ()]
        mine = [one for one in of_paper if one["year"] == str(card["year"])]
        assert any(one["author"].split(",")[0] == card["paper"].split()[0] for one in mine), name


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("beauty", ("he2016ups", "mcauley2015image")),
        ("markov", ()),
        ("sasrec@bce", ("kang2018sasrec",)),
        ("itemknn@recency-tuned", ("deshpande2004itemknn",)),
        ("recbole:GRU4Rec@bpr", ("zhao2021recbole", "hidasi2016gru4rec")),
        ("genplugin:letter@dsa", ("yang2025genplugin", "wang2024letter")),
        ("tiger@qwen3-0.6b", ("rajput2023tiger", "qwen2025qwen3")),
        ("sentence-transformers/all-MiniLM-L6-v2", ("reimers2019sbert", "wang2020minilm")),
        ("genplugin:mine", None),
        ("submitted:tiger", None),
        ("mine", None),
        (EVIL, None),
    ],
)
def test_keys_of_names_as_tables_print_them(name: str, keys: tuple[str, ...] | None):
    assert cite.keys_of(name) == keys


def test_every_entry_comes_once_and_the_suite_first():
    text = cite.cite(["tiger", "genplugin:tiger", "recbole:SASRec", "sasrec", "demo"])
    keys = [key for _, key in parsed(text)]
    assert keys[0] == cite.SUITE and keys[1:] == sorted(set(keys[1:]))
    assert {"rajput2023tiger", "yang2025genplugin", "zhao2021recbole", "kang2018sasrec"} < set(keys)
    assert "% demo: made for this suite" in text


def test_a_foreign_or_hostile_name_is_named_and_never_becomes_an_entry():
    text = cite.cite(["submitted:theirs", EVIL, "sasrec@gbce"])
    assert {key for _, key in parsed(text)} == set(cite.keys_of("sasrec@gbce") or ()) | {cite.SUITE}
    assert "% submitted:theirs: not of this suite, so there is no entry here; ask its authors" in text
    assert "% sasrec at gbce: kang2018sasrec, petrov2023gsasrec" in text
    head = text.split("\n\n")[0].splitlines()
    assert len(head) == 3 and all(line.startswith("% ") and line.isprintable() for line in head)


def record(method: str, **fields: Any) -> Record:
    usual = {"method": method, "dataset": "amazon14-toys", "protocol": {"name": "warmcold-setrec"}}
    return Record(Path(), usual | {"text_encoder": None, "config": {}} | fields)


def test_citations_stand_beside_the_tables_and_do_not_depend_on_the_order(tmp_path: Path):
    model = {"language_model": {"name": "t5-small"}}
    some = [
        record("tiger", text_encoder={"name": "all-MiniLM-L6-v2", "sha256": "1"}),
        record("simgr", config=model),
        record("submitted:theirs", config={"language_model": ["anything"]}),
    ]
    written = cite.write_citations(some, tmp_path / "loo")
    assert written == tmp_path / "loo" / "citations.bib"
    first = written.read_bytes()
    keys = {key for _, key in parsed(first.decode())}
    assert keys == {cite.SUITE, "rajput2023tiger", "zhao2026simgr", "raffel2020t5", "reimers2019sbert"} | {
        *("wang2020minilm", "he2016ups", "mcauley2015image", "lin2025setrec")
    }
    assert cite.write_citations(some[::-1], tmp_path / "loo").read_bytes() == first


def test_the_entry_of_the_suite_has_its_version_and_the_file_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f"version {project['project']['version']}" in cite.entries()[cite.SUITE]
    patterns = project["tool"]["setuptools"]["package-data"]["leaderboards"]
    assert any(fnmatch(cite.FILE, pattern) for pattern in patterns)


# --- the other names of recall -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hr", "hit"])
def test_hit_rate_is_recall_where_everybody_has_one_target_and_refused_elsewhere(name: str):
    hits = np.array([[False, True, False], [False, False, False], [True, False, False]])
    score = metrics.PER_USER[metrics.parse(f"{name}@2")[0]]
    assert score(hits, np.array([1, 1, 1]), 2).tolist() == [1, 0, 1]
    assert score(hits, np.array([1, 1, 1]), 1).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=r"only where every user has one target.* has 3; ask for recall@2$"):
        score(hits, np.array([1, 3, 1]), 2)


# --- LaTeX ---------------------------------------------------------------------------------------------------

HOSTILE = [
    r"\input{/etc/passwd}",
    "a & b % c # d $e_f^g ~",
    "}}} {{{",
    "<i>|</i>",
    "-1 ‮中文 müsli",
    EVIL,
    "\\end{table*}",
]


def hostile_table() -> str:
    rows = [[str(i), name, "-0.1 †"] for i, name in enumerate(HOSTILE)]
    section = Section("100 % & more", ["#", "method", "d_z"], rows, frozenset({(0, 2)}), notes=HOSTILE)
    grouped = Section("groups", ["method", "a", "b"], [["x", "1", "2"]], groups=[("all_of & it", 2)])
    made = [tables.latex_table(one, EVIL, HOSTILE, f"t-{i}") for i, one in enumerate((section, grouped))]
    return "\n".join(made) + "\n"


def check_structure(text: str) -> None:
    """What a compiler would fall over: environments, braces, columns, characters that nobody escaped."""
    opened: list[str] = []
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for kind, name in re.findall(r"\\(begin|end)\{([^}]*)\}", body):
        assert kind == "begin" or opened.pop() == name
        if kind == "begin":
            opened.append(name)
    assert not opened
    bare = body.replace(r"\\", "")
    assert len(re.findall(r"(?<!\\)\{", bare)) == len(re.findall(r"(?<!\\)\}", bare))
    assert not re.findall(r"(?<!\\)[#_]", bare) and bare.replace("\n", "").isprintable()
    assert len(re.findall(r"(?<!\\)%", bare)) == bare.count(r"\begin{tabular}")  # the one that ends the resizebox line
    for one in body.split(r"\begin{tabular}{")[1:]:
        inside = one.split(r"\end{tabular}")[0]
        rows = [line for line in inside.splitlines() if line.endswith(r"\\")]
        for row in rows:
            spans = sum(int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert len(re.findall(r"(?<!\\)&", row)) + spans == len(one.split("}")[0]) - 1


def test_hostile_names_stay_text_in_latex():
    text = hostile_table()
    check_structure(text)
    assert r"\input" not in text and "U+4E2DU+6587 müsli" in text and "U+202E" in text
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2


@pytest.mark.parametrize("path", sorted((ROOT / "leaderboards/published/tables").rglob("*.tex")), ids=lambda p: p.name)
def test_published_latex_is_whole(path: Path):
    check_structure(path.read_text())


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_hostile_tables_and_citations_compile_as_they_are(tmp_path: Path):
    (tmp_path / "tables.tex").write_text(hostile_table())
    everything = [*cite.METHODS, *cite.DATASETS, *cite.PROTOCOLS, *cite.MODELS, EVIL]
    (tmp_path / "citations.bib").write_text(cite.cite(everything))
    lines = [r"\documentclass{article}\usepackage{booktabs}\usepackage{graphicx}\begin{document}\input{tables}"]
    lines += [r"\nocite{*}\bibliographystyle{plain}\bibliography{citations}\end{document}"]
    (tmp_path / "main.tex").write_text("\n".join(lines))
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    for command in (latex, ["bibtex", "main"], latex):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", errors="replace")
        assert done.returncode == 0 and "Warning--" not in done.stdout, done.stdout
    assert (tmp_path / "main.bbl").read_text().count(r"\bibitem") == len(cite.entries())
