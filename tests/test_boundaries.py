"""The house keeps its rooms: imports point one way, the README tree matches the disk, the flags are frozen."""

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import cli

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("benchmark", "protocols", "leaderboards", "methods")
ALLOWED = {
    "benchmark": {"benchmark"},
    "protocols": {"benchmark", "protocols"},
    "leaderboards": {"benchmark", "protocols", "leaderboards"},
    "methods/blocks": {"benchmark", "protocols", "methods.blocks"},
    "methods": {"benchmark", "protocols", "methods.blocks"},
    "methods/audits": {"benchmark", "protocols", "methods"},
}
"""What the files of a place may import of ours; the longest matching place counts. Rooms never import rooms."""
TORCH_FREE = ("benchmark", "protocols", "leaderboards")
SUITE = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def imported(source):
    """Every module a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place_of(path):
    relative = path.relative_to(ROOT).as_posix()
    return max((place for place in ALLOWED if relative.startswith(f"{place}/")), key=len)


def breaches(place, room, modules):
    """The imports that point the wrong way; ``room`` is the importing room's own name, which it may import."""
    allowed = ALLOWED[place] | {room}
    for module in modules:
        top = module.split(".")[0]
        if module == "methods":
            wrong = place != "methods/audits"
        elif top in {*LAYERS, "run_all"}:
            wrong = not any(module == ok or module.startswith(f"{ok}.") for ok in allowed)
        else:
            wrong = top == "torch" and place in TORCH_FREE
        if wrong:
            yield module


@pytest.mark.parametrize("path", SUITE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    room = ".".join(parts[:2])
    modules = {name for name in imported(path.read_text()) if name != "methods.blocks"}
    assert not list(breaches(place_of(path), room, modules))


@pytest.mark.parametrize(
    ("place", "module"),
    [
        ("benchmark", "protocols.loo"),
        ("benchmark", "torch.nn"),
        ("protocols", "methods.sasrec"),
        ("leaderboards", "methods.blocks.training"),
        ("methods/blocks", "methods.sasrec"),
        ("methods", "methods.markov"),
        ("methods", "run_all"),
        ("leaderboards", "torch"),
    ],
)
def test_the_import_rule_can_be_broken(place, module):
    assert list(breaches(place, "methods.sasrec" if place == "methods" else place, {module}))


def test_tables_can_be_read_and_built_without_torch():
    code = "import sys, run_all, leaderboards.publish, protocols.loo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def flags(parser):
    found = {flag for action in parser._actions for flag in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {f"{name} {flag}" for name, sub in action.choices.items() for flag in flags(sub)}
    return found


def test_the_command_line_is_frozen():
    """A new flag is added knowingly: here and in the README."""
    run = (
        "--protocol --datasets --methods --seeds --track --profile --limit-users --data-dir --text-encoder "
        "--language-models --output-dir --device --jobs --time-limit --job-limit --overwrite --dry-run --exit-on-error"
    )
    audit = (
        "--protocol --datasets --methods --seeds --track --profile --data-dir --text-encoder --language-models "
        "--output-dir --device"
    )
    others = {
        "audit": "",
        "audit decoding": f"{audit} --users --beams",
        "audit ids": audit,
        "audit leakage": audit,
        "audit scaling": f"{audit} --users",
        "list": "--data-dir",
        "prepare": "--output-dir --name --k-core --data-dir --raw-dir --columns --items",
        "tune": "--dataset --trials --protocol --profile --seed --data-dir --text-encoder --language-models "
        "--output-dir --device --time-limit --dry-run",
        "leaderboard": "--output-dir --html --publish",
        "verify": "--data-dir",
        "submit": "--to --data-dir",
        "import": "--sidecar --output-dir --data-dir",
        "status": "--output-dir",
    }
    expected = {"-h", "--help"}
    for command, names in {"run": run, **others}.items():
        expected |= {f"{command} {flag}" for flag in [*names.split(), "-h", "--help"]}
    assert flags(cli.parser()) == expected


def test_the_readme_tree_matches_the_disk():
    """Every line of the tree names a file or folder that exists, and every code file has its line."""
    tree = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    named, folder = set(), ""
    for line in tree.splitlines():
        indent, names = re.match(r"( *)((?:\S+\.(?:py|md|toml|txt)|\S+/)(?: \S+\.py)*)", line).groups()
        for name in names.split():
            if not indent and name.endswith("/"):
                folder = name
            named.add(name if not indent else folder + name)
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing, "named in the README, absent on disk"
    code = {p.relative_to(ROOT).as_posix() for p in [ROOT / "run_all.py", *SUITE] if p.name != "__init__.py"}
    unnamed = {
        name
        for name in code
        if not any(name == n or (n.endswith("/") and n.count("/") > 1 and name.startswith(n)) for n in named)
    }
    assert not unnamed, "on disk, not named in the README"
