"""Leaderboard files from made-up records: what they say, what they refuse, and that equal records give equal bytes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark import records
from benchmark.records import Record
from leaderboards import curves, drawing, picture, tables
from leaderboards.compare import compare
from leaderboards.summary import summarise
from leaderboards.tables import terminal, write

KS = (1, 5, 10, 20)
LABELS = {"target popularity": ["head", "tail", "nobody"], "history length": ["<=5", ">5"]}


def build(found: list[Record], folder: Path, **settings: Any) -> dict[str, Path]:
    return write(summarise(found, **settings), folder)


def render_terminal(found: list[Record], **settings: Any) -> str:
    return terminal(summarise(found, **settings))


def per_user_scores(strength: float, seed: int, users: int = 600) -> dict[str, np.ndarray]:
    """Metrics of one target per user, hit with probability ``strength`` at a random rank of 1..20."""
    luck = np.random.default_rng(99).random(users)  # the same users are easy for every method
    rng = np.random.default_rng(seed)
    hit = (0.7 * luck + 0.3 * rng.random(users)) < strength
    rank = np.where(hit, rng.integers(1, 21, users), 10**6)
    scores = {f"recall@{k}": (rank <= k).astype(float) for k in KS}
    scores |= {f"ndcg@{k}": np.where(rank <= k, 1 / np.log2(rank + 1), 0.0) for k in KS}
    scores["mrr@20"] = np.where(rank <= 20, 1 / rank, 0.0)
    return scores | {f"{name}/seen-dropped": values * (1 + 1e-3) for name, values in scores.items()}


def fields_of(method: str, dataset: str, seed: int, **changes: Any) -> dict[str, Any]:
    provenance = {
        "commit": "c0ffee",
        "dirty": False,
        "python": "3.11.9",
        "versions": {"numpy": "2.4.0"},
        "hardware": {"cpu": "Toy CPU", "cores": 2, "memory_gib": 8.0, "gpu": None},
        "finished": "2025-01-01T00:00:00+00:00",
    }
    return {
        "status": "ok",
        "reason": None,
        "method": method,
        "dataset": dataset,
        "dataset_hash": f"data-{dataset}",
        "seed": seed,
        "protocol": {"name": "loo", "version": 1, "hash": "abc123"},
        "track": "unified",
        "profile": "small",
        "config": {"width": 64},
        "config_hash": f"config-{method}",
        "text_encoder": None,
        "limit_users": None,
        "metrics": {},
        "slice_labels": {},
        "training": {"stopped_by": "patience", "best_epoch": 7},
        "parameters": 123_456,
        "spend": {
            "rule": "scores",
            "items_scored": 12101.0,
            "forward_passes": 1.0,
            "beam_size": 0,
            "decoder_tokens": 0.0,
        },
        "timings": {"train": 83.25, "decode": 1.5},
        "peak_memory_bytes": {"train": 1e9},
        "provenance": provenance,
    } | changes


def fake(root: Path, method: str, strength: float, seed: int = 0, dataset: str = "toys", **changes: Any) -> Record:
    """A finished record on disk; ``changes`` replace fields of record.json."""
    scores = per_user_scores(strength, len(method) + 100 * seed)
    users = len(scores["ndcg@10"])
    codes = {
        "slice:target popularity": (np.arange(users) % 3 > 0).astype(np.int8),
        "slice:history length": (np.arange(users) % 2).astype(np.int8),
    }
    means = {name: float(values.mean()) for name, values in scores.items()}
    fields = fields_of(method, dataset, seed, metrics=means | {"coverage@10": 0.5}, slice_labels=LABELS) | changes
    place = root / dataset / records.escape(method) / fields["config_hash"] / f"seed={seed}"
    arrays = {"users": np.arange(1, users + 1, dtype=np.int32), **scores, **codes}
    return records.write(place, fields, {"per_user.npz": arrays}, None)


def failure(
    root: Path, method: str, status: str, reason: str, dataset: str = "toys", seed: int = 0, **changes: Any
) -> Record:
    changes |= {"status": status, "reason": reason, "training": {}, "spend": None, "timings": {}}
    fields = fields_of(method, dataset, seed, **changes)
    return records.write(root / dataset / records.escape(method) / "x" / f"seed={seed}", fields, {}, None)


def some(root: Path, dataset: str = "toys") -> list[Record]:
    """A typical table: floors, the reference, variants, a beam method stopped by the cap, and two failures."""
    beam = {
        "rule": "raw",
        "items_scored": 80.0,
        "forward_passes": 4.0,
        "beam_size": 20,
        "decoder_tokens": 80.0,
    }
    return [
        fake(root, "popularity", 0.1, dataset=dataset, training={}, parameters=0),
        fake(root, "sasrec", 0.4, dataset=dataset),
        fake(root, "sasrec@sampled", 0.4, dataset=dataset),
        fake(root, "recbole:GRU4Rec", 0.7, dataset=dataset),
        fake(root, "ti_ger", 0.2, dataset=dataset, training={"stopped_by": "cap"}, spend=beam),
        failure(root, "letter", "oom", "needs 5% more\nmemory | or less", dataset),
        failure(root, "knn", "skipped", "no text", dataset),
    ]


FAST = {"reference": "sasrec", "permutations": 500}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    build([*some(root / "r"), *some(root / "r", "beauty")], root / "tables", **FAST)
    return root / "tables"


def section(text: str, title: str) -> str:
    """The part of a Markdown file below one heading."""
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def body(part: str) -> list[list[str]]:
    """Cells of a Markdown table, without its header."""
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_every_dataset_gets_four_files_and_the_folder_an_index(built: Path):
    names = {path.name for path in built.iterdir()}
    assert names == {"README.md"} | {f"{d}.{s}" for d in ("toys", "beauty") for s in ("md", "tex", "csv", "json")}
    assert "[md](toys.md)" in (built / "README.md").read_text()


def test_rows_are_ranked_by_the_primary_metric_and_marked(built: Path):
    rows = body(section((built / "toys.md").read_text(), "Ranked by ndcg@10"))
    order = ["recbole:GRU4Rec", "sasrec", "sasrec@sampled", "ti_ger (under-trained)", "popularity"]
    assert sorted(row[1].strip("*") for row in rows) == sorted(order)
    assert [rows[0][1], rows[-1][1]] == ["recbole:GRU4Rec", "popularity"]
    marked = {row[1]: row[8] for row in rows}
    assert marked["recbole:GRU4Rec"].endswith("†**") and marked["popularity"].endswith("‡")
    assert not marked["sasrec"].endswith(("†", "‡"))


def test_numbers_in_the_table_are_those_of_the_comparison(tmp_path: Path):
    found = some(tmp_path)
    done = {r.method: r.per_user()["ndcg@10"][:, None] for r in found if r.status == "ok"}
    text = build(found, tmp_path / "t", **FAST)["toys"].read_text()
    rows = {row[0]: row for row in body(section(text, "Compared with sasrec"))}
    for one in compare(done, "sasrec", permutations=500):
        row = rows.get(one.method) or rows[f"{one.method} (under-trained)"]
        assert row[1] == f"{done[one.method].mean():.4f}"
        assert row[3].split()[0] == f"{one.difference:+.4f}"
        assert row[4] == f"[{one.interval[0]:+.4f}, {one.interval[1]:+.4f}]"
        assert row[6] == f"{one.p_holm:.4f}" and row[8] == f"{one.wins}/{one.ties}/{one.losses}"


def test_markdown_says_what_a_reader_must_know(built: Path):
    text = (built / "toys.md").read_text()
    for sentence in (
        "Protocol loo version 1 (abc123), track unified, profile small, 600 users asked.",
        "One trained model per method (seed 0).",
        "recall@K is the same as hr@K",
        "Minimum detectable effect in ndcg@10 with 600 users",
        "under-trained: the training was stopped by its cap",
        "Decode-limited at K = 20, no larger beam was searched: ti_ger.",
        "exact McNemar p on recall@10",
        "data-toys",
        "c0ffee",
        "Toy CPU, 2 cores",
        "numpy 2.4.0",
    ):
        assert sentence in text, sentence
    assert "%" not in text.replace("95 %", "").replace("80 %", "").replace("5% more", "")


def test_runs_without_a_result_are_shown_with_their_reason(built: Path):
    rows = body(section((built / "toys.md").read_text(), "Without a result"))
    assert rows == [
        ["knn", "0", "skipped", "no text"],
        ["letter", "0", "oom", r"needs 5% more memory \| or less"],
    ]


def test_slices_show_users_and_leave_out_empty_labels(built: Path):
    part = section((built / "toys.md").read_text(), "By target popularity")
    assert "head: 200 users" in part and "tail: 400 users" in part and "nobody" not in part
    stored = json.loads((built / "toys.json").read_text())["rows"][0]["slices"]["target popularity"]["head"]
    strong = per_user_scores(0.7, len("recbole:GRU4Rec"))["ndcg@10"][::3]
    assert stored["primary"] == pytest.approx(strong.mean()) and stored["users"] == 200
    assert stored["interval"][0] < stored["primary"] < stored["interval"][1]


def test_csv_and_json_hold_raw_numbers(built: Path):
    frame = pd.read_csv(StringIO((built / "toys.csv").read_text()), float_precision="round_trip")
    assert frame["method"][0] == "recbole:GRU4Rec" and set(frame["status"]) == {"ok", "oom", "skipped"}
    exact = per_user_scores(0.7, len("recbole:GRU4Rec"))["ndcg@10"].mean()
    stored = json.loads((built / "toys.json").read_text())
    assert frame["ndcg@10"][0] == stored["rows"][0]["metrics"]["ndcg@10"] == exact
    assert frame["difference"][0] == stored["rows"][0]["comparison"]["difference"]
    assert len(stored["pairs"]) == 10 and stored["absent"][1]["status"] == "oom"


def test_latex_escapes_styles_and_marks(built: Path):
    text = (built / "toys.tex").read_text()
    assert r"\usepackage{booktabs}" in text
    assert r"ti\_ger (under-trained)" in text and r"95 \%" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    best = next(line for line in lines if "GRU4Rec" in line)
    assert best.count(r"\textbf{") == 9 and r"}$^{\dagger}$" in best
    assert text.count(r"\underline{") >= 9 and r"$^{\ddagger}$" in text
    tables_of = text.split(r"\begin{tabular}{")[1:]
    for one in tables_of:
        columns = len(one.split("}")[0])
        rows = [line for line in one.splitlines() if line.endswith(r"\\")]
        assert rows and all(len(re.findall(r"(?<!\\)&", row)) == columns - 1 for row in rows)
    unescaped = re.findall(r"(?<!\\)[%#_]", "\n".join(line for line in text.splitlines() if not line.startswith("%")))
    assert unescaped == ["%"] * len(tables_of)  # the one that ends the resizebox line
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2
    for opening, closing in ("{}",):
        assert len(re.findall(rf"(?<!\\)\{opening}", text)) == len(re.findall(rf"(?<!\\)\{closing}", text))


def test_latex_escape_of_every_special_character():
    assert tables.escape("a_b & 5% #1 {x} ~^\\ $2 <3") == (
        r"a\_b \& 5\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} \$2 \textless{}3"
    )
    assert tables.escape("-0.1 [-0.2, +0.3] amazon14-beauty 1-2") == "$-$0.1 [$-$0.2, +0.3] amazon14-beauty 1-2"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_as_it_is(built: Path, tmp_path: Path):
    shutil.copy(built / "toys.tex", tmp_path / "toys.tex")
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{toys}\end{document}"
    (tmp_path / "main.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_same_records_give_the_same_bytes_in_any_order(tmp_path: Path):
    found = some(tmp_path / "r") + some(tmp_path / "r", "beauty")
    build(found, tmp_path / "a", **FAST)
    build(found[::-1], tmp_path / "b", **FAST)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert render_terminal(found, **FAST) == render_terminal(found[::-1], **FAST)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": {"name": "loo", "version": 2, "hash": "other"}}, "protocol hashes"),
        ({"track": "paper"}, "track"),
        ({"profile": "full"}, "profile"),
        ({"limit_users": 100}, "limit_users"),
        ({"dataset_hash": "other"}, "dataset hashes"),
    ],
)
def test_records_that_may_not_share_a_table_are_refused(tmp_path: Path, change: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words) as refusal:
        build([fake(tmp_path, "a", 0.3), fake(tmp_path, "b", 0.3, **change)], tmp_path / "t", reference="a")
    assert str(refusal.value).count(". ") == 0 and not (tmp_path / "t").exists()


MINILM = {"name": "minilm", "sha256": "a" * 64}
OTHER_MINILM = {"name": "minilm", "sha256": "b" * 64}
LSA = {"name": "lsa", "sha256": None}


@pytest.mark.parametrize("other", [OTHER_MINILM, LSA])
def test_two_text_encoders_in_one_unified_table_are_refused(tmp_path: Path, other: dict[str, Any]):
    found = [
        fake(tmp_path, "a", 0.3),
        fake(tmp_path, "b", 0.3, text_encoder=MINILM),
        fake(tmp_path, "c", 0.3, text_encoder=other),
    ]
    with pytest.raises(ValueError, match=r"text encoders on toys \(.*minilm \(a{12}\).*--text-encoder") as refusal:
        summarise(found, **FAST)
    assert records.encoder_label(other) in str(refusal.value)
    on_paper = [records.Record(one.folder, one.fields | {"track": "paper"}) for one in found]
    (summary,) = summarise(on_paper, **FAST)
    assert summary.made_by["text encoder"] == sorted(["minilm (aaaaaaaaaaaa)", records.encoder_label(other)])


def test_one_text_encoder_goes_with_methods_that_read_none(tmp_path: Path):
    """The same content in a folder of another name is the same encoder; a run without a result is no row."""
    found = [
        fake(tmp_path, "a", 0.3),
        fake(tmp_path, "b", 0.3, text_encoder=MINILM),
        fake(tmp_path, "c", 0.3, text_encoder=MINILM | {"name": "copy"}),
        fake(tmp_path, "d", 0.3, dataset="beauty", text_encoder=LSA),
        fake(tmp_path, "e", 0.3, status="failed", text_encoder=LSA, reason="no network"),
    ]
    beauty, toys = summarise(found, **FAST)
    assert {row.method for row in toys.rows} == {"a", "b", "c"}
    assert beauty.made_by["text encoder"] == ["lsa"]


def test_two_configurations_of_one_method_are_refused(tmp_path: Path):
    found = [fake(tmp_path, "a", 0.3), fake(tmp_path, "a", 0.3, seed=1, config_hash="other")]
    with pytest.raises(ValueError, match="configurations of a on toys"):
        build(found, tmp_path / "t", reference="a")


def test_the_same_run_twice_is_refused(tmp_path: Path):
    one = fake(tmp_path, "a", 0.3)
    with pytest.raises(ValueError, match="given twice"):
        build([one, one], tmp_path / "t", reference="a")


@pytest.mark.parametrize("key", ["users", "slice:history length"])
def test_records_of_other_users_are_refused(tmp_path: Path, key: str):
    one, other = fake(tmp_path, "a", 0.3), fake(tmp_path, "b", 0.3)
    arrays = other.per_user()
    other = records.write(other.folder, other.fields, {"per_user.npz": arrays | {key: arrays[key][::-1]}}, None)
    with pytest.raises(ValueError, match="asked other users"):
        build([one, other], tmp_path / "t", reference="a")


def test_nothing_to_show_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no records"):
        build([], tmp_path, reference="a")


def test_without_the_reference_differences_are_left_out_aloud(tmp_path: Path):
    found = [
        fake(tmp_path, "a", 0.3),
        fake(tmp_path, "b", 0.6),
        failure(tmp_path, "sasrec", "timeout", "too slow"),
    ]
    text = build(found, tmp_path / "t", **FAST)["toys"].read_text()
    assert "Differences are left out: the reference sasrec has no finished run here." in text
    assert "Holm p |" not in text and "95 % interval" in text and "too slow" in text
    assert "Differences are left out" in render_terminal(found, **FAST)


def test_a_dataset_where_nothing_finished_still_has_a_page(tmp_path: Path):
    found = [failure(tmp_path, "sasrec", "failed", "it broke")]
    assert "it broke" in build(found, tmp_path / "t", **FAST)["toys"].read_text()
    assert "it broke" in render_terminal(found, **FAST)


def test_a_limited_run_is_no_benchmark_result(tmp_path: Path):
    text = build([fake(tmp_path, "sasrec", 0.4, limit_users=600)], tmp_path / "t", **FAST)["toys"].read_text()
    assert "limited to 600 users: not a benchmark result" in text


def test_seeds_are_averaged_and_their_spread_is_shown(tmp_path: Path):
    found = [fake(tmp_path, method, s, seed) for method, s in (("sasrec", 0.4), ("a", 0.7)) for seed in (0, 1, 2)]
    (summary,) = summarise(found, **FAST)
    values = [r.metrics["ndcg@10"] for r in found if r.method == "a"]
    row = summary.rows[0]
    assert row.method == "a" and row.metrics["ndcg@10"] == pytest.approx(np.mean(values))
    assert row.spread["ndcg@10"] == pytest.approx(np.std(values, ddof=1))
    text = tables.markdown(summary)
    assert "Means over seeds 0, 1, 2." in text and "One trained model" not in text
    assert f"{np.std(values, ddof=1):.4f}" in section(text, "Compared with sasrec")
    assert "t-interval of the difference over seeds: a [+" in text
    assert row.mcnemar is None  # three seeds are not one hit or miss per user


def test_a_failed_seed_does_not_hide_the_others(tmp_path: Path):
    found = [fake(tmp_path, "sasrec", 0.4), failure(tmp_path, "sasrec", "failed", "seed trouble", seed=1)]
    found[1].fields["config_hash"] = found[0].fields["config_hash"]
    text = build(found, tmp_path / "t", **FAST)["toys"].read_text()
    assert body(section(text, "Ranked by ndcg@10"))[0][1] == "sasrec"
    assert body(section(text, "Without a result")) == [["sasrec", "1", "failed", "seed trouble"]]


def test_all_pairs_matrix_is_antisymmetric(built: Path):
    rows = body(section((built / "toys.md").read_text(), "All pairs"))
    matrix = [row[2:] for row in rows]
    turned = {"+": "-", "-": "+", "=": "=", ".": "."}
    assert all(matrix[i][j] == turned[matrix[j][i]] for i in range(5) for j in range(5))
    assert matrix[0][4] == "+" and [matrix[i][i] for i in range(5)] == ["."] * 5


def test_index_ranks_methods_across_datasets(built: Path):
    rows = body(section((built / "README.md").read_text(), "Across datasets"))
    assert rows[0][1:3] == ["recbole:GRU4Rec", "1.00"] and rows[0][-1] == "2"


def test_the_terminal_table_fits_and_hides_nothing(tmp_path: Path):
    found = [*some(tmp_path), fake(tmp_path, "genplugin:" + "long" * 12 + "@no-rar", 0.5)]
    text = render_terminal(found, **FAST)
    assert max(map(len, text.splitlines())) <= 120
    assert all(
        line.endswith(("s", "decode", "-")) for line in text.splitlines()[3:11] if line[0] in "#-123456"
    )  # no column is cut off
    assert "knn (seed 0) skipped: no text" in text and "letter (seed 0) oom: needs 5% more memory" in text


def test_pictures_are_the_same_every_time(tmp_path: Path):
    pytest.importorskip("matplotlib")
    summaries = summarise(some(tmp_path / "r"), **FAST)
    assert picture.draw(summaries, tmp_path / "a") == picture.draw(summaries, tmp_path / "b") == []
    assert (tmp_path / "a" / "toys.svg").read_bytes() == (tmp_path / "b" / "toys.svg").read_bytes()
    assert (tmp_path / "a" / "toys.png").read_bytes() == (tmp_path / "b" / "toys.png").read_bytes()
    drawn = (tmp_path / "a" / "toys.svg").read_text()
    assert "ti_ger (under-trained)" in drawn and "difference to sasrec" in drawn and "not told apart" in drawn


def test_nothing_is_drawn_for_tables_that_are_only_compared(tmp_path: Path):
    pytest.importorskip("matplotlib")
    summaries = summarise(some(tmp_path / "r"), **FAST)
    with drawing.nothing_drawn():
        assert picture.draw(summaries, tmp_path / "t") == []
    assert not (tmp_path / "t").exists()
    picture.draw(summaries, tmp_path / "t")
    assert any((tmp_path / "t").iterdir())


def test_without_matplotlib_a_note_is_all_that_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert "matplotlib" in picture.draw(summarise(some(tmp_path / "r"), **FAST), tmp_path / "t")[0]
    assert not (tmp_path / "t").exists()


def test_training_curves_show_trained_methods_and_are_the_same_every_time(tmp_path: Path):
    pytest.importorskip("matplotlib")
    curve = [{"loss": 2.0, "valid": 0.1}, {"loss": 1.0}, {"loss": 0.5, "valid": 0.3}]
    found = some(tmp_path / "r")
    assert found[0].fields["status"] == "ok"
    for record in found:
        record.fields["training"] = {}
    curves.draw_curves(found, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    found[0].fields["training"] = {"curve": curve, "best_epoch": 3, "stopped_by": "limit"}
    for folder in ("a", "b"):
        curves.draw_curves(found, tmp_path / folder)
    drawn = (tmp_path / "a" / f"{found[0].dataset}-training.svg").read_text()
    assert drawn == (tmp_path / "b" / f"{found[0].dataset}-training.svg").read_text()
    assert f"{found[0].method} seed {found[0].seed}" in drawn
    assert not any(f"{record.method} seed" in drawn for record in found if record.method != found[0].method)


# --- protocols with settings ---

WARMCOLD = {"name": "warmcold", "version": 1, "hash": "def456"}
CANDIDATES = {"all": 1000, "warm": 800, "cold": 200}


def fake_settings(root: Path, method: str, strength: float, **changes: Any) -> Record:
    """A record of 400 users with a warm target each, 100 of whom have a cold one too."""
    rng = np.random.default_rng(6)
    users = np.concatenate([np.arange(1, 401), np.arange(1, 101)])  # (T,)
    items = np.concatenate([rng.integers(1, 300, 400), rng.integers(800, 1000, 100)])
    cold = np.arange(500) >= 400
    luck = np.random.default_rng(5).random((3, 500))
    ranks = {name: np.where(row < strength, 3, 0).astype(np.uint8) for name, row in zip(CANDIDATES, luck, strict=True)}
    ranks["warm"][cold], ranks["cold"][~cold] = 0, 0
    asked = {"all": np.ones(500, bool), "warm": ~cold, "cold": cold, "group 1 (most popular)": items < 100}
    scores = {}
    for name, rows in asked.items():
        hit = ranks.get(name, ranks["all"])[rows] > 0
        n = np.bincount(users[rows], minlength=401)[1:]
        with np.errstate(invalid="ignore"):
            recall = np.bincount(users[rows], hit, minlength=401)[1:] / n  # NaN for those not asked
        suffix = "" if name == "all" else f"/{name}"
        scores |= {f"recall@{k}{suffix}": recall for k in (5, 10)} | {f"ndcg@{k}{suffix}": recall / 2 for k in (5, 10)}
    scores |= {"recall@10/seen-dropped": scores["recall@10"], "ndcg@10/seen-dropped": scores["ndcg@10"]}
    facts = {("candidates" if n == "all" else f"candidates_{n}"): c for n, c in CANDIDATES.items()}
    means = {name: float(np.nanmean(values)) for name, values in scores.items()}
    fields = fields_of(method, "toys", 0, protocol=WARMCOLD, metrics=means, facts=facts) | changes
    targets = {"users": users, "items": items, "rank": ranks["all"]}
    targets |= {f"rank/{n}": ranks[n] for n in ("warm", "cold")} | {f"asked/{n}": asked[n] for n in ("warm", "cold")}
    arrays = {"per_user.npz": {"users": np.arange(1, 401, dtype=np.int32), **scores}, "per_target.npz": targets}
    return records.write(root / records.escape(method) / "seed=0", fields, arrays, None)


def with_settings(root: Path) -> list[Record]:
    return [
        fake_settings(root, "sasrec", 0.4),
        fake_settings(root, "better", 0.6),
        fake_settings(root, "floors", 0.03),
        failure(root, "tiger", "skipped", "no text in any field", protocol=WARMCOLD),
    ]


@pytest.fixture(scope="module")
def asked_apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("apart")
    build(with_settings(root / "r"), root / "tables", **FAST)
    return root / "tables"


def test_settings_stand_beside_the_ranked_table_and_never_in_it(asked_apart: Path):
    text = (asked_apart / "toys.md").read_text()
    header = next(line for line in section(text, "Ranked by ndcg@10").splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in header.split("|")[3:-1]] == ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]
    part = section(text, "Warm and cold")
    assert "all, 400 users, 1,000 candidates: recall@10" in part
    assert "warm, 400 users, 800 candidates: recall@10" in part and "cold, 100 users, 200 candidates" in part
    rows = {row[1].strip("*"): row for row in body(part)}
    stored = {row["method"]: row for row in json.loads((asked_apart / "toys.json").read_text())["rows"]}
    metrics = ["recall@10", "ndcg@10", "recall@10/warm", "ndcg@10/warm", "recall@10/cold", "ndcg@10/cold"]
    for method, row in rows.items():
        shown = [cell.strip("*").split()[0] for cell in row[2:]]
        assert shown == [f"{stored[method]['metrics'][name]:.4f}" for name in metrics]
    assert all(cell.startswith("**") for cell in rows["better"][2:]) and "**" not in "".join(rows["sasrec"])
    assert len(body(section(text, "Among cold items: 100 users, 200 candidates"))[0]) == 2 + 4
    dropped = section(text, "Seen items dropped")
    assert len(body(dropped)[0]) == 2 + 2


def test_groups_of_targets_have_their_own_users_and_intervals(asked_apart: Path):
    row = json.loads((asked_apart / "toys.json").read_text())["rows"][0]
    cell = row["settings"]["group 1 (most popular)"]
    assert cell["primary"] == pytest.approx(row["metrics"]["ndcg@10/group 1 (most popular)"])
    assert cell["interval"][0] < cell["primary"] < cell["interval"][1] and 100 < cell["users"] < 200
    part = section((asked_apart / "toys.md").read_text(), "By popularity group of the target")
    assert f"1 (most popular): {cell['users']} users: ndcg@10" in part
    assert body(part)[0][1:] == [
        f"{cell['primary']:.4f} [{cell['interval'][0]:.4f}, {cell['interval'][1]:.4f}]",
        f"{cell['recall']:.4f}",
    ]


def test_chance_is_printed_per_setting_with_every_difference_and_its_interval(asked_apart: Path):
    part = section((asked_apart / "toys.md").read_text(), "Against chance")
    for heading in ("all: chance 10/1,000 = 0.0100", "warm: chance 10/800 = 0.0125", "cold: chance 10/200 = 0.0500"):
        assert heading in part
    assert "pigeonhole" in part and "not adjusted" in part
    rows = {row[0]: row[1:] for row in body(part)}
    stored = {row["method"]: row for row in json.loads((asked_apart / "toys.json").read_text())["rows"]}
    for method, cells in rows.items():
        for place, name in enumerate(CANDIDATES):
            one = stored[method]["chance"][name]
            metric = "recall@10" if name == "all" else f"recall@10/{name}"
            assert one["recall"] == pytest.approx(stored[method]["metrics"][metric])
            assert one["difference"] == pytest.approx(one["recall"] - 10 / CANDIDATES[name])
            said = f" {one['verdict']}" if one["verdict"] else ""
            bounds = f"[{one['interval'][0]:+.4f}, {one['interval'][1]:+.4f}]{said}"
            assert cells[3 * place : 3 * place + 3] == [f"{one['recall']:.4f}", f"{one['difference']:+.4f}", bounds]
    assert rows["better"][8].endswith("above chance") and not rows["floors"][8].endswith("above chance")
    frame = pd.read_csv(StringIO((asked_apart / "toys.csv").read_text()), float_precision="round_trip")
    best = stored["better"]["chance"]["cold"]
    assert frame["chance cold difference"][0] == best["difference"]
    assert [frame["chance cold low"][0], frame["chance cold high"][0]] == best["interval"]
    assert frame["chance cold verdict"][0] == "above chance"


def test_latex_groups_the_columns_of_settings(asked_apart: Path):
    (table,) = [t for t in (asked_apart / "toys.tex").read_text().split(r"\begin{table*}") if "Warm and cold" in t]
    assert r" &  & \multicolumn{2}{c}{all, 400 users, 1,000 candidates} & \multicolumn{2}{c}{warm" in table
    assert r"\cmidrule(lr){3-4}\cmidrule(lr){5-6}\cmidrule(lr){7-8}" in table
    assert r"\begin{tabular}{rlrrrrrr}" in table


def test_the_terminal_shows_settings_chance_and_what_is_missing(tmp_path: Path):
    found = [*with_settings(tmp_path), fake_settings(tmp_path, "genplugin:" + "long" * 12 + "@no-rar", 0.5)]
    text = render_terminal(found, **FAST)
    assert max(map(len, text.splitlines())) <= 120 and "..." in text
    header = next(line for line in text.splitlines() if "decode" in line)
    columns = ["#", "method", "recall@10", "ndcg@10", "ndcg@10/warm", "ndcg@10/cold", "difference", "Holm p"]
    assert re.split(r"\s{2,}", header.strip()) == [*columns, "train", "decode"]
    row = next(line.split() for line in text.splitlines() if " better " in f"{line} ")
    metrics = found[1].metrics
    shown = ["recall@10", "ndcg@10", "ndcg@10/warm", "ndcg@10/cold"]
    assert row[2:6] == [f"{metrics[name]:.4f}" for name in shown] and row[-2:] == ["1m23s", "1.5s"]
    assert "cold 0.0500, 3 of 4" in text and "tiger (seed 0) skipped: no text in any field" in text


def test_the_picture_of_settings_holds_chance_and_is_the_same_every_time(tmp_path: Path):
    pytest.importorskip("matplotlib")
    summaries = summarise(with_settings(tmp_path / "r"), **FAST)
    assert picture.draw(summaries, tmp_path / "a") == picture.draw(summaries, tmp_path / "b") == []
    for suffix in ("svg", "png"):
        name = f"toys.settings.{suffix}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    drawn = (tmp_path / "a" / "toys.settings.svg").read_text()
    assert "cold: 100 users," in drawn and "above chance" in drawn and "stroke-dasharray" in drawn
    picture.draw(summarise(some(tmp_path / "s"), **FAST), tmp_path / "c")
    assert not (tmp_path / "c" / "toys.settings.svg").exists()


def test_records_with_other_users_in_a_setting_are_refused(tmp_path: Path):
    one, other = fake_settings(tmp_path, "a", 0.3), fake_settings(tmp_path, "b", 0.3)
    arrays = other.per_user() | {"ndcg@10/cold": other.per_user()["ndcg@10/cold"][::-1]}
    kept = {"per_user.npz": arrays, "per_target.npz": other.per_target()}
    other = records.write(other.folder, other.fields, kept, None)
    with pytest.raises(ValueError, match="asked other users"):
        summarise([one, other], **FAST)


def tuned(root: Path, method: str, trials: int) -> Record:
    return fake(root, method, 0.3, tuning={"trials": [{"value": 0.1}] * trials})


def test_tuned_rows_say_how_many_trials_they_had_and_warn_of_unequal_ones(tmp_path: Path):
    equal = [fake(tmp_path, "sasrec", 0.4), tuned(tmp_path, "sasrec@tuned", 5), tuned(tmp_path, "a@tuned", 5)]
    text = tables.markdown(summarise(equal, **FAST)[0])
    assert "Tuned on validation with 5 trials: " in text and "Warning" not in text
    assert "Tuned" not in tables.markdown(summarise(equal[:1], **FAST)[0])
    unequal = tables.markdown(summarise([*equal, tuned(tmp_path, "b@tuned", 20)], **FAST)[0])
    part = section(unequal, "Ranked by ndcg@10")
    assert "a@tuned (5)" in part and "b@tuned (20)" in part and "Warning: the tuned methods had different" in part


def test_no_two_of_many_curves_look_alike():
    looks = [curves._look(place) for place in range(4 * len(curves.COLOURS))]
    assert len(set(looks)) == len(looks)
    assert [look[:2] for look in looks[: len(curves.COLOURS)]] == list(zip(curves.COLOURS, curves.MARKERS, strict=True))


@pytest.mark.filterwarnings("error")  # of a layout that gave up
def test_curves_have_room_beside_a_legend_of_many_trainings(tmp_path: Path):
    pytest.importorskip("matplotlib")
    training = {"curve": [{"valid": 0.1}, {"valid": 0.2}]}  # of a method that does not say which epoch it chose
    many = [fake(tmp_path, f"method{i}", 0.3, training=training) for i in range(60)]
    figure = curves._figure("toys", many)
    figure.draw_without_rendering()
    inches = figure.axes[0].get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    assert inches.height > 3.0 and inches.width > 3.0
