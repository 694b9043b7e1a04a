"""The ledger: what stands beside which figure, hand-computed gaps, and the arithmetic that no figure may break."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import methods
import protocols
from benchmark import records
from benchmark.datasets.catalogue import CATALOGUE
from benchmark.records import Record
from leaderboards.ledger import ABOVE, BELOW, INSIDE, Row, ledger
from leaderboards.ledger import data as ledger_data
from leaderboards.ledger.checks import IMPOSSIBLE, doubts, published_doubts
from leaderboards.ledger.data import MATCHES, SHORTER, SMALLER, Figure, figures, reruns
from leaderboards.ledger.pages import write_ledger
from leaderboards.summary import summarise
from tests.test_tables import fields_of

BEAUTY, TOYS = "amazon14-beauty", "amazon14-toys"
SLICE = ledger_data.GROUPED_LIKE_GENPLUGIN


def run(
    root: Path, method: str, scores: dict[str, np.ndarray], dataset: str = BEAUTY, seed: int = 0, **changes: Any
) -> Record:
    """A finished run of the current protocol with these per-user scores."""
    name = changes.pop("rules", "loo")
    protocol = {"name": name, "version": 1, "hash": protocols.load(name).hash}
    users = len(next(iter(scores.values())))
    means = {k: float(np.nanmean(v)) for k, v in scores.items() if not k.startswith("slice:")}
    fields = fields_of(method, dataset, seed, protocol=protocol, metrics=means) | changes
    place = root / name / dataset / records.escape(method) / fields["profile"] / f"seed={seed}"
    arrays = {"users": np.arange(1, users + 1, dtype=np.int32), **scores}
    return records.write(place, fields, {"per_user.npz": arrays}, None)


def at_ranks(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """hr and ndcg at 1, 5 and 10 of one target at these ranks; 0 = not found."""
    found = np.where(ranks > 0, ranks, 10**6)
    scores = {f"recall@{k}": (found <= k).astype(float) for k in (1, 5, 10)}
    return scores | {f"ndcg@{k}": np.where(found <= k, 1 / np.log2(found + 1), 0.0) for k in (1, 5, 10)}


def some_ranks(seed: int, users: int = 400, share: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(users) < share, rng.integers(1, 11, users), 0)


def only(rows: list[Row], **wanted: str) -> Row:
    """The one row whose figure, or which itself, has these values."""
    (row,) = [
        r for r in rows if all(getattr(r.figure, k, None) == v or getattr(r, k, None) == v for k, v in wanted.items())
    ]
    return row


def printed(row: dict[str, float], **changes: str) -> list[Figure]:
    """Figures of one line of one made-up table."""
    place = {"paper": "P", "table": "Table 1", "protocol": "loo", "dataset": BEAUTY, "subset": "all", "method": "M"}
    more = {"backbone": "", "beam_size": ""} | changes
    return [Figure(**{**place, **more}, metric=metric, value=value) for metric, value in row.items()]


def test_gap_interval_and_seeds_are_those_of_the_scores(tmp_path):
    ranks = [some_ranks(0), some_ranks(1)]
    runs = [run(tmp_path, "tiger", at_ranks(r), seed=seed) for seed, r in enumerate(ranks)]
    row = only(ledger(runs).rows, paper="GenPlugin", method="tiger", metric="HR@10")
    shares = [(r > 0).mean() for r in ranks]
    assert row.figure.value == 0.0609 and row.figure.source == "GenPlugin, Tables 1, 2, 9"
    assert row.value == pytest.approx(np.mean(shares))
    assert row.gap == pytest.approx(np.mean(shares) - 0.0609) and row.relative == pytest.approx(row.gap / 0.0609)
    assert row.spread == pytest.approx(np.std(shares, ddof=1)) and row.seeds == (0, 1) and row.users == 400


def test_intervals_are_the_tables_own(tmp_path):
    runs = [run(tmp_path, method, at_ranks(some_ranks(seed))) for seed, method in enumerate(("tiger", "letter"))]
    (table,) = summarise(runs, reference="tiger", permutations=100)
    rows = ledger(runs).rows
    for line in table.rows:
        row = only([r for r in rows if r.method == line.method], paper="GenPlugin", metric="NDCG@10")
        assert row.interval == line.interval


def test_the_verdict_says_where_ours_stands(tmp_path):
    row = ledger([run(tmp_path, "tiger", at_ranks(some_ranks(0)))]).rows[0]
    figure = row.figure
    assert replace(row, value=figure.value + 0.01, interval=(figure.value + 0.005, 1.0)).verdict == ABOVE
    assert replace(row, value=figure.value - 0.01, interval=(0.0, figure.value - 0.005)).verdict == BELOW
    assert replace(row, value=figure.value + 0.01, interval=(figure.value, 1.0)).verdict == INSIDE


def test_a_run_answers_only_figures_of_its_protocol_dataset_and_method(tmp_path):
    scores = at_ranks(some_ranks(0))
    rows = ledger([run(tmp_path, "tiger", scores), run(tmp_path, "markov", scores)]).rows
    assert {(r.figure.protocol, r.figure.dataset, r.figure.method) for r in rows} == {("loo", BEAUTY, "TIGER")}
    assert {r.figure.paper for r in rows} == {"TIGER", "GenPlugin"}
    timed = ledger([run(tmp_path, "tiger", scores, rules="warmcold-setrec")]).rows
    assert {(r.figure.paper, r.figure.subset) for r in timed} == {("SETRec", "all")}
    assert not any(r.reruns for r in timed), "reruns are of leave-one-out"


def test_heads_are_cut_as_the_paper_cuts_them_and_warm_users_are_those_asked(tmp_path):
    ranks = some_ranks(0, share=0.5)
    codes = {f"slice:{SLICE}": (np.arange(400) % 4 == 0).astype(np.int8), "slice:other": np.zeros(400, np.int8)}
    labels = {"other": ["head"], SLICE: ["tail", "head"]}
    loo = run(tmp_path, "tiger", at_ranks(ranks) | codes, TOYS, slice_labels=labels)
    head = only(ledger([loo]).rows, subset="head", metric="HR@10")
    assert (head.users, head.value) == (100, pytest.approx((ranks[::4] > 0).mean()))
    warm = np.where(np.arange(400) < 300, ranks > 0, np.nan)
    timed = run(tmp_path, "tiger", at_ranks(ranks) | {"recall@10/warm": warm}, TOYS, rules="warmcold-setrec")
    row = only(ledger([timed]).rows, subset="warm", metric="Recall@10", backbone="T5-small")
    assert (row.users, row.value) == (300, pytest.approx((ranks[:300] > 0).mean()))


@pytest.mark.parametrize(
    ("method", "profile", "figure", "size"),
    [
        ("tiger", "small", ("SETRec", "T5-small"), SMALLER),
        ("tiger", "full", ("SETRec", "T5-small"), "another backbone"),
        ("tiger@t5-small", "full", ("SETRec", "T5-small"), ""),
        ("tiger@t5-small", "full", ("SETRec", "Qwen2.5-1.5B"), "another backbone"),
        ("tiger", "full", ("GenPlugin", "T5-4+4L-d128"), ""),
        ("recbole:SASRec", "small", ("GenPlugin", ""), SHORTER),
    ],
)
def test_a_smaller_run_beside_a_larger_model_is_marked(tmp_path, method, profile, figure, size):
    rules = "warmcold-setrec" if figure[0] == "SETRec" else "loo"
    record = run(tmp_path, method, at_ranks(some_ranks(0)), rules=rules, profile=profile)
    rows = [r for r in ledger([record]).rows if (r.figure.paper, r.figure.backbone) == figure]
    assert rows and {row.size for row in rows} == {size}
    assert all(not row.reason for row in rows if not row.size and row.figure.paper != "TIGER")


def test_reasons_tell_what_the_record_says_of_the_run(tmp_path):
    def told(name: str, **changes: Any) -> str:
        record = run(tmp_path / name, "tiger", at_ranks(some_ranks(0)), **changes)
        return only(ledger([record]).rows, paper="GenPlugin", metric="HR@10").reason

    done = {"stopped_by": "limit", "epochs": 7}
    reason = told("a", training=done, parameters=1_234, text_encoder={"name": "some-encoder", "sha256": "1"})
    assert (
        "; ours (seed 0): 1,234 parameters, 7 epochs (all that were set), item texts by some-encoder; the paper's: "
        in reason
    )
    assert reason.endswith("T5-4+4L-d128, item texts by Llama 2")
    capped = told("b", training={"stopped_by": "cap", "epochs": 3}, parameters=None)
    assert "ours (seed 0): 3 epochs (ended by the cap on training time); the paper's" in capped
    assert told("c", training={**done, "stopped_by": "patience"}) != reason
    assert told("d", profile="full", training=done) == "", "facts alone are no reason"


def test_the_rebuild_is_told_of_tigers_own_figures_on_the_unified_track_only(tmp_path):
    for track, share in (("unified", 1), ("paper", 0)):
        rows = ledger([run(tmp_path / track, "tiger", at_ranks(some_ranks(0)), track=track)]).rows
        assert {("user token" in r.reason) for r in rows if r.figure.paper == "TIGER"} == {bool(share)}
        assert not any("user token" in r.reason for r in rows if r.figure.paper == "GenPlugin")


def test_reruns_of_tigers_own_layout_stand_beside_its_own_figures_only(tmp_path):
    rows = ledger([run(tmp_path, "tiger", at_ranks(some_ranks(0)))]).rows
    assert {r.figure.paper for r in rows if r.reruns} == {"TIGER"}


def test_sasrec_is_matched_with_the_loss_that_the_paper_ran():
    sasrec = {f.paper: f for f in figures() if f.method == "SASRec"}
    closest = {paper: [m.ours for m in ledger_data.matches(f) if m.closest] for paper, f in sasrec.items()}
    assert closest == {"GenPlugin": ["sasrec@bce"], "SimGR": ["recbole:SASRec"]}


def test_runs_that_may_not_stand_beside_papers_are_left_out_with_their_reason(tmp_path):
    scores = at_ranks(some_ranks(0))
    old = {"name": "loo", "version": 1, "hash": "0ld"}
    bad = [
        run(tmp_path / "a", "tiger", scores, limit_users=400),
        run(tmp_path / "b", "letter", scores, protocol=old),
        run(tmp_path / "c", "sasrec", scores, status="oom", reason="too large"),
    ]
    made = ledger(bad)
    assert not made.rows
    assert [part in line for part, line in zip(("0ld", "too large", "400 users"), made.left_out, strict=True)] == [
        True
    ] * 3


def test_every_figure_has_a_row_or_a_reason(tmp_path):
    made = ledger([run(tmp_path, "tiger", at_ranks(some_ranks(0)))])
    unanswered = sum(count for _, _, count, _ in made.unanswered)
    assert unanswered + len({row.figure for row in made.rows}) == len(figures())
    assert ("SETRec", "BIGRec", 72, "no such method in the suite") in made.unanswered


def test_all_files_are_the_same_whatever_the_order_of_the_records(tmp_path):
    runs = [
        run(tmp_path, name, at_ranks(some_ranks(i)))
        for i, name in enumerate(("tiger", "sasrec@bce", "sasrec", "letter"))
    ]
    told = write_ledger(runs, tmp_path / "a")
    write_ledger(runs[::-1], tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"ledger.md", "ledger.csv", "ledger.json"} <= set(names)
    for name in names:
        if not name.endswith(".png"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    text = (tmp_path / "a" / "ledger.md").read_text()
    for picture in (name for name in names if name.endswith(".svg")):
        assert f"({picture})" in text
    lines = pd.read_csv(StringIO((tmp_path / "a" / "ledger.csv").read_text()))
    stored = json.loads((tmp_path / "a" / "ledger.json").read_text())
    assert len(lines) == len(stored["rows"]) == len(ledger(runs).rows)
    assert SMALLER in text and IMPOSSIBLE in text and str(tmp_path) not in text
    assert f"of {len(lines)} comparisons" in told[0]


def test_no_list_of_one_answer_is_ever_called_impossible():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        users = int(rng.integers(30, 3000))
        ranks = np.where(rng.random(users) < rng.random(), rng.integers(1, rng.integers(2, 14), users), 0)
        scores = {k: float(v.mean()) for k, v in at_ranks(ranks).items() if k != "ndcg@1"}
        names = {k: f"{'HR' if k.startswith('recall') else 'NDCG'}@{k.partition('@')[2]}" for k in scores}
        kept = [k for k in scores if rng.random() < 0.8]
        assert not doubts(printed({names[k]: round(scores[k], 4) for k in kept}))


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"HR@5": 0.05, "HR@10": 0.04}, "HR@10"),
        ({"HR@10": 0.10, "NDCG@10": 0.10 / math.log2(11) - 0.0002}, "NDCG@10"),
        ({"HR@10": 0.10, "NDCG@10": 0.1002}, "NDCG@10"),
        ({"HR@1": 0.05, "HR@5": 0.10, "NDCG@5": 0.05 + 0.05 / math.log2(3) + 0.0002}, "NDCG@5"),
        ({"HR@5": 0.05, "NDCG@5": 0.03, "HR@10": 0.07, "NDCG@10": 0.03 + 0.02 / math.log2(7) + 0.0002}, "NDCG@10"),
        ({"HR@5": 0.05, "NDCG@5": 0.03, "HR@10": 0.07, "NDCG@10": 0.03 + 0.02 / math.log2(11) - 0.0002}, "NDCG@10"),
    ],
)
def test_what_no_lists_can_score_is_impossible(row, wrong):
    found = doubts(printed(row))
    assert [(f.metric, d.kind) for f, some in found.items() for d in some] == [(wrong, IMPOSSIBLE)]


def test_the_published_figures_that_cannot_be_as_printed_are_these():
    found = {
        (f.paper, f.dataset.partition("-")[2], f.method)
        for f, some in published_doubts().items()
        if any(d.kind == IMPOSSIBLE for d in some)
    }
    assert found == {
        *(("GenPlugin", "beauty", m) for m in ("GRU4Rec", "SASRec", "BERT4Rec", "S3-Rec", "TIGER++")),
        *(("GenPlugin", "toys", m) for m in ("SASRec", "BERT4Rec", "S3-Rec", "TIGER++")),
        *(("GenPlugin", "instruments-img", m) for m in ("BERT4Rec", "S3-Rec", "MQL4GRec")),
        ("GenPlugin", "arts-img", "SASRec"),
        *(("SimGR", "instruments", m) for m in ("HGN", "P5-CID", "RPG", "SimGR[gating]")),
        ("SimGR", "arts", "RPG"),
    }


def test_twins_second_prints_and_falls_among_warm_items_are_suspicious():
    row = {"HR@1": 0.01, "HR@5": 0.03, "HR@10": 0.05, "NDCG@5": 0.02}
    twins = doubts(printed(row) + printed({**row, "NDCG@10": 0.027}, method="N"))
    assert {f.method for f in twins} == {"M", "N"} and all("4 of 4" in d.text for some in twins.values() for d in some)
    assert not doubts(printed(row) + printed({**row, "HR@10": 0.051, "HR@5": 0.031}, method="N"))
    again = doubts(printed({"HR@10": 0.05}) + printed({"HR@10": 0.0501}, table="Table 2"))
    assert sorted(d.text for some in again.values() for d in some)[0] == "the paper's Table 1 prints 0.0500"
    timed = {"protocol": "warmcold-setrec"}
    fallen = doubts(printed({"Recall@10": 0.02}, **timed) + printed({"Recall@10": 0.01}, **timed, subset="warm"))
    assert [f.subset for f in fallen] == ["warm"]


def test_head_and_tail_that_do_not_make_the_whole_are_suspicious():
    def of(whole: float, head: float, tail: float) -> list[Figure]:
        parts = {"all": whole, "head": head, "tail": tail}
        return [f for subset, v in parts.items() for f in printed({"HR@10": v}, subset=subset, dataset=TOYS)]

    made = (8_970 * 0.10 + 10_442 * 0.02) / 19_412  # users as GenPlugin's Table 5 counts them
    assert not doubts(of(round(made + 0.002, 4), 0.10, 0.02))
    found = doubts(of(round(made + 0.003, 4), 0.10, 0.02))
    assert {f.subset for f in found} == {"all", "head", "tail"}
    assert all(f"make {made:.4f}, all users" in d.text for some in found.values() for d in some)
    marked = {
        (f.dataset.partition("-")[2], f.method)
        for f, some in published_doubts().items()
        if any("weighted" in d.text for d in some)
    }
    instruments = (("instruments-img", name) for name in ("MQL4GRec", "MQL4GRec++", "TIGER"))
    assert marked == {("toys", "MQL4GRec"), *instruments}


def test_our_runs_stand_beside_reruns_with_seen_items_kept_and_dropped(tmp_path):
    ranks = some_ranks(0, share=0.5)
    scores = at_ranks(ranks)
    scores |= {f"{name}/seen-dropped": np.minimum(1.0, values * 2) for name, values in scores.items()}
    write_ledger([run(tmp_path, "tiger", scores)], tmp_path / "out")
    lines = [line for line in (tmp_path / "out" / "ledger.md").read_text().splitlines() if "**ours**" in line]
    shown = [[cell.strip() for cell in line.split("|")][5:9] for line in lines]
    names = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
    kept, dropped = ([f"{scores[name + end].mean():.4f}" for name in names] for end in ("", "/seen-dropped"))
    assert shown == [kept, dropped] and kept != dropped and "seen items dropped" in lines[1]


def test_the_cited_figures_are_whole():
    counts = Counter(f"{f.paper} {f.protocol}" for f in figures())
    assert counts.keys() == {"TIGER loo", "GenPlugin loo", "SimGR loo", "SETRec warmcold-setrec"}
    assert all(0 < f.value < 1 and f.dataset in CATALOGUE and f.protocol in protocols.names() for f in figures())
    assert all(0 < r.value < 1 for r in reruns())
    with Path(ledger_data.__file__).with_name("published_figures.csv").open() as file:
        lines = file.read().splitlines()
    tables = Counter(tuple(line.split(",")[:2]) for line in lines[1:])
    assert (tables["GenPlugin", "Table 2"], tables["SETRec", "Table 1"], tables["SimGR", "Table 3"]) == (200, 432, 165)


def test_every_matched_method_exists_and_its_presets_too():
    for match in MATCHES:
        assert methods.load(match.ours), match.ours
    unknown = {m.published for m in MATCHES} - {f.method for f in figures()}
    assert not unknown
    assert {m.reruns for m in MATCHES if m.reruns} <= {r.method for r in reruns()}


def test_faulty_reruns_are_told_but_never_compared_with(tmp_path):
    row = only(ledger([run(tmp_path, "tiger", at_ranks(some_ranks(0)))]).rows, paper="TIGER", metric="Recall@10")
    faulty = [r.value for r in reruns() if r.method == "TIGER" and r.fault and r.dataset == BEAUTY]
    assert faulty and not set(faulty) & set(row.reruns) and len(row.reruns) > 5
