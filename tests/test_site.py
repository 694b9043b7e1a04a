"""The data of the site and its one page: equal to the summaries, closed against what strings may hold, bounded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from pathlib import Path

import pytest

import protocols
from benchmark import records
from leaderboards.site import cards, data, document, page, write_site
from tests.site_world import HOSTILE, build
from tests.test_tables import fake

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"))


def data_of(folder):
    """What the page's own code would read."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def table_of(site, dataset, protocol="loo"):
    return next(t for t in site["tables"] if t["dataset"] == dataset and t["protocol"]["name"] == protocol)


def test_every_number_is_that_of_the_summary(built):
    folder, summaries = built
    site = data_of(folder)
    assert len(site["tables"]) == len(summaries) == 3
    for summary in summaries:
        table = table_of(site, summary.dataset, summary.shared["protocol"]["name"])
        assert [row["method"] for row in table["rows"]] == [row.method for row in summary.rows]
        for shown, row in zip(table["rows"], summary.rows, strict=True):
            assert shown["metrics"] == pytest.approx(row.metrics, rel=1e-5)
            assert shown["interval"] == pytest.approx(row.interval, rel=1e-5)
            assert [run["fields"]["seed"] for run in shown["runs"]] == list(row.seeds)
            if row.comparison is not None:
                assert shown["versus"]["p_holm"] == pytest.approx(row.comparison.p_holm, rel=1e-5)
            for cut in table["slices"]:
                assert len(shown["cells"][cut["name"]]) == len(cut["parts"])


def test_pairs_point_the_way_of_their_difference(built):
    folder, _ = built
    table = table_of(data_of(folder), "toys")
    values = [row["metrics"]["ndcg@10"] for row in table["rows"]]
    assert len(table["pairs"]) == len(values) * (len(values) - 1) // 2
    for a, b, difference, low, high, *_ in table["pairs"]:
        assert difference == pytest.approx(values[a] - values[b], abs=2e-6) and low <= difference <= high


def test_verdicts_are_words_and_floors_are_known(built):
    folder, _ = built
    rows = {row["method"]: row for row in table_of(data_of(folder), "toys")["rows"]}
    assert rows["sasrec"]["verdict"] == "reference" and rows["recbole:GRU4Rec"]["verdict"] == "better"
    assert rows["popularity"]["verdict"] == "worse" and rows["popularity"]["floor"]
    assert rows["ti_ger"]["under_trained"] and rows["ti_ger"]["limited"] and rows["ti_ger"]["family"] == "submitted"
    assert table_of(data_of(folder), "toys")["heading"] == ["One trained model per method (seed 0)."]


def test_runs_of_another_protocol_hash_say_so(built):
    folder, _ = built
    table = table_of(data_of(folder), "toys", "warmcold")
    assert not table["current"] and table["id"].endswith("@other") and not table["files"]


def test_no_string_ends_its_block(built):
    folder, _ = built
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert HOSTILE not in text and "onerror=" not in re.sub(r"\\u003c.*?\\u003e", "", text)
    assert text.count("</script>") == 2 and "\u2028" not in text
    assert HOSTILE in {row["method"] for row in table_of(data_of(folder), "toys")["rows"]}


def test_embedded_json_is_whole_and_has_no_angle():
    value = {"<!--": HOSTILE, "n": [1, None, 0.5]}
    text = page.embedded(value)
    assert json.loads(text) == value and not set("<>&\u2028") & set(text)
    with pytest.raises(ValueError):
        page.embedded(float("nan"))


def test_a_placeholder_in_the_data_is_data():
    assert "[[code]] [[style]]" in page.page({"name": "[[code]] [[style]]", "tables": []})


def test_the_policy_allows_the_pages_own_code_and_nothing_else(built):
    folder, _ = built
    text = (folder / "index.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    for tag, source in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy


def test_code_never_makes_markup_of_strings():
    code = "".join((page.ASSETS / name).read_text() for name in page.SCRIPTS)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|import\(", code)
    assert {path.name for path in page.ASSETS.glob("*.js")} == set(page.SCRIPTS)


def test_files_are_copied_and_those_of_others_are_not(built):
    folder, _ = built
    table = table_of(data_of(folder), "toys")
    names = {Path(file["href"]).name for file in table["files"]}
    tables = {"toys.csv", "toys.tex", "toys.json", "toys.md"}
    assert names == tables | {"toys.ids.md", "toys.ids-card.svg", "citations.bib"}
    assert all((folder / file["href"]).stat().st_size == file["bytes"] for file in table["files"])
    (audit,) = table["audits"]
    pictures = [block["href"] for block in audit["blocks"] if block["kind"] == "picture"]
    assert audit["kind"] == "ids" and pictures == ["files/loo/unified-small/toys.ids-card.svg"]
    assert "leakage" in data_of(folder)["questions"]  # so the page can say that it was not asked


def test_what_links_lead_to_is_not_copied(tmp_path):
    """A published folder may come from anybody."""
    found, made = [fake(tmp_path / "records", "markov", 0.2)], tmp_path / "tables"
    (tmp_path / "secret").write_text("# mine")
    place = made / "loo" / "unified-small"
    place.mkdir(parents=True)
    for link in (place / "toys.csv", place / "toys.ids.md", made / "ledger.md", made / "ledger.csv"):
        link.symlink_to(tmp_path / "secret")
    now = protocols.load("loo")
    now = {"name": now.name, "version": now.version, "hash": now.hash}
    found = [records.Record(one.folder, one.fields | {"protocol": now}) for one in found]
    write_site(found, tmp_path / "site", tables=made, ledger=made)
    site = data_of(tmp_path / "site")
    assert site["tables"][0]["current"] and site["ledger"] is None
    assert not site["tables"][0]["files"] and not site["tables"][0]["audits"]
    assert [path.name for path in (tmp_path / "site").rglob("*")] == ["index.html"]


def test_the_page_grows_with_rows_and_not_with_users(built):
    folder, _ = built
    site = data_of(folder)
    rows = sum(len(table["rows"]) for table in site["tables"])
    assert len(page.embedded(site)) < 12_000 * rows + 20_000


def test_the_same_records_give_the_same_page(tmp_path):
    found = [fake(tmp_path / "r", name, 0.3) for name in ("sasrec", "markov")]
    for order, name in ((found, "a"), (found[::-1], "b")):
        write_site(order, tmp_path / name, tables=tmp_path)
    assert (tmp_path / "a" / "index.html").read_bytes() == (tmp_path / "b" / "index.html").read_bytes()


def test_without_runs_there_is_still_a_page(tmp_path):
    write_site([], tmp_path, tables=tmp_path)
    assert data_of(tmp_path)["tables"] == []


def test_documents_become_blocks():
    text = "# T\n\nOne **bold**\n*line* of 2 * 3 * 4.\n\n- a\n  b\n- c\n\n![p](p.svg)\n\n"
    text += "| x | y |\n|:--|--:|\n| a \\| b | 1 |\n"
    heading, sentence, items, picture, table = document.blocks(text)
    assert picture == {"kind": "picture", "text": "p", "file": "p.svg"}
    assert heading == {"kind": "heading", "level": 1, "text": "T"}
    assert sentence["text"] == "One bold line of 2 * 3 * 4." and items["items"] == ["a b", "c"]
    assert table == {"kind": "table", "header": ["x", "y"], "rows": [["a | b", "1"]], "numeric": [False, True]}


def test_numbered_notes_keep_their_numbers():
    (notes,) = document.blocks("3. First `one`.\n4. Second: 2. of all.\n")
    assert notes == {"kind": "notes", "first": 3, "items": ["First one.", "Second: 2. of all."]}


def test_pictures_stand_where_the_document_names_them(built):
    folder, _ = built
    ledger = data_of(folder)["ledger"]
    assert [block["kind"] for block in ledger["blocks"]] == ["heading", "text", "picture", "table"]
    assert (folder / ledger["blocks"][2]["href"]).exists()
    assert {Path(file["href"]).name for file in ledger["files"]} == {"ledger.md", "ledger.csv", "ledger-x.svg"}


def test_a_published_document_keeps_every_cell():
    path = next((ROOT / "leaderboards" / "published" / "tables").rglob("*.ids.md"))
    found = [block for block in document.blocks(path.read_text()) if block["kind"] == "table"]
    assert found and all(len(row) == len(block["header"]) for block in found for row in block["rows"])


def test_every_room_has_a_card():
    rooms = {p.stem for p in (ROOT / "methods").iterdir() if (p.suffix == ".py" or (p / "__init__.py").exists())}
    rooms -= {"__init__", "blocks", "audits", "recbole"}
    assert {cards.card_of(room) for room in rooms} == rooms
    published = {r.method for r in records.read_all(ROOT / "leaderboards" / "published" / "records")}
    assert not {method for method in published if cards.card_of(method) is None}
    assert cards.card_of("genplugin:tiger@dsa") == "genplugin" and cards.card_of("recbole:HGN") == "recbole:HGN"
    assert cards.card_of("submitted:mine") is None and cards.family_of("submitted:mine") == "submitted"


def test_cards_are_complete():
    families = {family["key"] for family in cards.known()["families"]}
    for key, card in cards.known()["methods"].items():
        assert card["family"] in families and card["title"] and card["about"], key
        assert card["faithful"] and isinstance(card["changed"], list), key
        assert "year" not in card or str(card["year"]) in card["paper"], key


def test_variants_are_presets_of_their_rooms():
    for key, card in cards.known()["methods"].items():
        room = ROOT / "methods" / key.partition(":")[0]
        files = sorted(room.rglob("*.py")) if room.is_dir() else [room.with_suffix(".py")]
        code = "".join(path.read_text() for path in [*files, *(ROOT / "methods" / "blocks").glob("*generator.py")])
        unknown = {name for name in card.get("variants", {}) if f'"{name}"' not in code} - {"tuned"}
        assert not unknown, key


def test_datasets_have_their_counts(built):
    folder, _ = built
    assert {card["name"]: card["entry"] for card in data_of(folder)["datasets"]} == {"beauty": None, "toys": None}
    about = {"id": "x", "dataset": "amazon14-beauty", "dataset_hash": "h", "rows": [], "facts": {"items": 3}}
    (card,) = cards.dataset_cards([about | {"protocol": {"name": "loo"}}])
    assert card["entry"]["users"] == 22363 and card["asked"][0]["facts"] == {"items": 3}


def test_rules_of_every_protocol_are_shown(built):
    folder, _ = built
    shown = {one["name"]: one for one in data_of(folder)["protocols"]}
    loo = protocols.load("loo")
    assert shown["loo"] == {"name": "loo", "version": 1, "hash": loo.hash, "rules": json.loads(json.dumps(loo.rules))}


def test_a_card_knows_what_to_cite(built):
    folder, _ = built
    cited = {card["key"]: card["bibtex"] for card in data_of(folder)["methods"]}
    assert cited["sasrec"].startswith("@inproceedings{kang2018sasrec,") and "@article{klenitskiy" not in cited["markov"]
    assert cited["popularity"] == cited[HOSTILE] == "" and cards.bibtex("beauty").count("\n@") == 1


def test_the_command_of_a_run_is_one_that_a_shell_takes_as_it_is():
    fields = {"method": "recbole:GRU4Rec", "method_source": None, "limit_users": None, "seed": 2, "track": "unified"}
    fields |= {"dataset": "it's; rm", "profile": "small", "protocol": {"name": "loo"}}
    words = "run_all.py --protocol loo --datasets X --methods recbole:GRU4Rec --seeds 2 --track unified --profile small"
    expected = [fields["dataset"] if word == "X" else word for word in words.split()]
    assert shlex.split(data.command(fields)) == ["python", *expected]
    for other in ({"method": HOSTILE}, {"method_source": "abc"}, {"limit_users": 9}, {"method": "graph@tuned"}):
        assert data.command(fields | other) is None


def test_numbers_are_short():
    assert data.rounded({"a": [1 / 3, (2, "x")]}) == {"a": [0.333333, [2, "x"]]}
