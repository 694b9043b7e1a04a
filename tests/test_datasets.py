"""Files -> Dataset: numbering, order, text, splits, names, and the one sentence said of every damaged file."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmark.datasets import atomic, describe, load, names, resolve
from benchmark.datasets.assembly import content_hash
from benchmark.datasets.catalogue import CATALOGUE
from benchmark.datasets.prepare import core, prepare
from benchmark.datasets.text import TEMPLATE_HASH, category_codes

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
ROWS = ["u2\tNA\t5", "u10\tB\t9", "u2\tB\t3", "u10\tA\t9", "u2\tA\t5"]
ITEMS = [
    "item_id:token\ttitle:token_seq\tprice:float\tbrand:token\tcategories:token_seq",
    'A\t"Best" mug, 3" wide\t3.5\tAcme\tShop > Tea > Mugs',
    "NA\t\t\t\tShop > Art",
    "unbought\tGhost\t1\tBoo\tShop > Zoo",
]


def put(folder: Path, name: str = "toy", **files: list[str] | str) -> Path:
    """A dataset folder with these files by suffix; a list becomes lines."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for suffix, content in files.items():
        text = content if isinstance(content, str) else "\n".join(content) + "\n"
        file = "dataset.json" if suffix == "meta" else f"{name}.{suffix.replace('_', '.')}"
        (folder / name / file).write_text(text, encoding="utf-8", newline="")
    return folder / name


def refusal(path: Path | str, data_dir: Path | None = None) -> str:
    """What ``load`` says, which must be one sentence."""
    with pytest.raises(ValueError) as error:
        load(str(path), data_dir)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_name_that_would_leave_the_results_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "...inter").write_text(f"{HEADER}\nu\ti\t1\n")
    assert "'..' cannot name a dataset" in refusal(tmp_path / "...inter")


def test_rows_become_numbers_by_sorted_key_and_keep_file_order(tmp_path: Path) -> None:
    data = load(str(put(tmp_path, inter=[HEADER, *ROWS], item=ITEMS)))
    assert data.name == "toy"
    assert data.user_keys.tolist() == ["u10", "u2"] and data.item_keys.tolist() == ["A", "B", "NA"]
    assert data.users.tolist() == [2, 1, 2, 1, 2] and data.items.tolist() == [3, 2, 2, 1, 1]
    assert data.users.dtype == data.items.dtype == np.int32
    assert data.timestamps.tolist() == [5, 9, 3, 9, 5] and not data.order_only
    assert [row.tolist() for row in data.sequences] == [[2, 1], [2, 3, 1]]  # equal times keep file order


def test_text_is_the_pinned_template_by_item_id(tmp_path: Path) -> None:
    data = load(str(put(tmp_path, inter=[HEADER, *ROWS], item=ITEMS)))
    assert data.item_text == ["", '"Best" mug, 3" wide. Acme. Shop > Tea > Mugs', "", "Shop > Art"]
    assert data.item_fields["title"].tolist() == ["", '"Best" mug, 3" wide', "", ""]
    assert list(data.item_fields) == ["title", "brand", "categories"]
    assert data.categories is not None and data.categories.tolist() == [0, 2, 0, 1]  # Art before Tea
    assert TEMPLATE_HASH == "b71260d35623"


def test_a_declared_field_closes_the_text(tmp_path: Path) -> None:
    items = ["item_id:token\tkeyphrase:token_seq\ttitle:token_seq", "A\tfor tea\tMug", "B\t\tPot"]
    plain = put(tmp_path / "1", inter=[HEADER, *ROWS], item=items)
    assert load(str(plain)).item_text == ["", "Mug", "Pot", ""]
    declared = put(tmp_path / "2", inter=[HEADER, *ROWS], item=items, meta='{"extra_text": "keyphrase"}')
    assert load(str(declared)).item_text == ["", "Mug. for tea", "Pot", ""]
    assert load(str(declared)).meta["extra_text"] == "keyphrase"


def test_movielens_columns_are_title_and_categories(tmp_path: Path) -> None:
    items = [
        "item_id:token\tmovie_title:token_seq\tclass:token_seq",
        "A\tToy Story\tComedy Animation",
        "B\tX\tAction",
    ]
    data = load(str(put(tmp_path, inter=[HEADER, *ROWS], item=items)))
    assert data.item_text[1] == "Toy Story. Comedy Animation"
    assert data.categories is not None and data.categories.tolist() == [0, 2, 1, 0]


def test_a_path_without_second_level_has_no_category() -> None:
    fields = {"categories": np.array(["", "Shop", "Shop > B > X", "Shop > A"], object)}
    codes = category_codes(fields)
    assert codes is not None and codes.tolist() == [0, 0, 2, 1]


def test_without_item_file_there_is_no_text(tmp_path: Path) -> None:
    data = load(str(put(tmp_path, inter=[HEADER, *ROWS])))
    assert data.item_text == [""] * 4 and data.item_fields == {} and data.categories is None


def test_without_times_file_order_is_the_time(tmp_path: Path) -> None:
    rows = [row.rsplit("\t", 1)[0] for row in [HEADER, *ROWS]]
    data = load(str(put(tmp_path, inter=rows)))
    assert data.order_only
    assert data.timestamps.tolist() == [0, 0, 1, 1, 2]
    assert [row.tolist() for row in data.sequences] == [[2, 1], [3, 2, 1]]


@pytest.mark.parametrize("meta", ['{"time": "order only (positions)"}', '{"order_only": true}'])
def test_declared_order_only_keeps_the_column_as_order(tmp_path: Path, meta: str) -> None:
    data = load(str(put(tmp_path, inter=[HEADER, *ROWS], meta=meta)))
    assert data.order_only and data.timestamps.tolist() == [5, 9, 3, 9, 5]


def test_a_split_column_and_split_files_say_the_same(tmp_path: Path) -> None:
    parts = ["train", "train", "valid", "valid", "test"]
    column = [f"{HEADER}\tsplit:token", *(f"{row}\t{part}" for row, part in zip(ROWS, parts, strict=True))]
    one = load(str(put(tmp_path / "1", inter=column)))
    files = {f"{p}_inter": [HEADER, *(r for r, q in zip(ROWS, parts, strict=True) if q == p)] for p in set(parts)}
    two = load(str(put(tmp_path / "2", **files)))
    assert one.presplit is not None and one.presplit.tolist() == [0, 0, 1, 1, 2] and not one.labels
    assert one.sha256 == two.sha256
    assert load(str(tmp_path / "2" / "toy" / "toy.train.inter")).sha256 == two.sha256
    column[2] = column[2].replace("train", "dev")
    assert "has the split 'dev'; use train, valid or test" in refusal(put(tmp_path / "1", inter=column))


def test_a_missing_part_of_a_split_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, train_inter=[HEADER, *ROWS])
    assert refusal(path) == f"{path / 'toy.valid.inter'} is missing; put it there"


def test_further_token_columns_are_labels(tmp_path: Path) -> None:
    rows = [f"{HEADER}\trating:float\twhere:token", *(f"{row}\t4\t{n}" for n, row in enumerate(ROWS))]
    data = load(str(put(tmp_path, inter=rows)))
    assert list(data.labels) == ["where"] and data.labels["where"].tolist() == ["0", "1", "2", "3", "4"]


def test_line_ends_and_a_missing_last_one_do_not_matter(tmp_path: Path) -> None:
    plain = load(str(put(tmp_path / "1", inter=[HEADER, *ROWS])))
    windows = load(str(put(tmp_path / "2", inter="\ufeff" + "\r\n".join([HEADER, *ROWS]))))
    assert plain.sha256 == windows.sha256


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"inter": ""}, "toy.inter is empty; fetch it again"),
        ({"inter": [HEADER]}, "toy.inter has a header but no rows"),
        ({"inter": [HEADER, *ROWS[:-1], "u2\tA"]}, "toy.inter is cut off: its last row has 2 of 3 columns"),
        ({"inter": [HEADER, "u2\tA", *ROWS]}, "toy.inter is damaged: line 2 has 2 of 3 columns"),
        ({"inter": [HEADER, "u2\tA\t1\t9", "u3\tB"]}, "toy.inter is damaged: line 2 has 4 of 3 columns"),
        ({"inter": [HEADER, *ROWS, "u\0\tA\t9"]}, "toy.inter is damaged: it holds zero bytes"),
        ({"inter": [HEADER, *ROWS, "\tA\t9"]}, "has a row with an empty user_id"),
        (
            {"inter": ROWS},
            "expected typed, tab-separated column names such as 'user_id:token\\titem_id:token",
        ),
        (
            {"inter": [HEADER.replace(":token", ""), *ROWS]},
            "has the header 'user_id\\titem_id\\ttimestamp:float'",
        ),
        ({"inter": [HEADER.replace("item_id", "item"), *ROWS]}, "has the header 'user_id:token\\titem:token"),
        ({"inter": [HEADER.replace("float", "token"), *ROWS]}, "has the header"),
        (
            {"inter": [HEADER, *ROWS], "item": ["title:token_seq", "x"]},
            "toy.item has the header 'title:token_seq'",
        ),
        (
            {"inter": [HEADER, *ROWS, "u2\tC\tyesterday"]},
            "interaction 6 has the timestamp 'yesterday', which is not",
        ),
        ({"inter": [HEADER, *ROWS, "u2\tC\t"]}, "interaction 6 has no timestamp; give it one"),
        ({"inter": [HEADER, *ROWS, "u2\tC\t2014-01-31"]}, "`python run_all.py prepare` converts ISO dates"),
        ({"inter": [HEADER, *ROWS, "u2\tC\t-1"]}, "interaction 6 has the timestamp '-1', which is before 1970"),
        ({"inter": [HEADER, *ROWS, "u2\tC\tnan"]}, "interaction 6 has the timestamp 'nan', which is not a number"),
        ({"inter": [HEADER, *ROWS], "item": [*ITEMS, ITEMS[1]]}, "describes item 'A' twice"),
        ({"inter": [HEADER, *ROWS], "meta": "{"}, "dataset.json is not valid JSON"),
        (
            {"inter": [HEADER, *ROWS], "meta": '{"items": 4}'},
            "holds 2 users, 3 items, 5 interactions where toy has",
        ),
        (
            {"inter": [HEADER, *ROWS], "meta": '{"k_core": 2}'},
            "promises 2 interactions for every user and item",
        ),
        ({"inter": [HEADER, *ROWS], "meta": '{"sha256": {"toy.inter": "0"}}'}, "is damaged or was changed"),
        ({"inter": [HEADER, *ROWS, ROWS[0]]}, "run `python run_all.py prepare PATH --output-dir DIR` first"),
        ({"train_inter": [HEADER], "inter": [HEADER]}, "holds toy.inter and toy.train.inter"),
    ],
)
def test_damage_is_told_in_one_sentence(tmp_path: Path, files: dict[str, list[str] | str], said: str) -> None:
    assert said in refusal(put(tmp_path, **files))


@pytest.mark.parametrize(
    ("per_second", "said"),
    [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")],
)
def test_times_in_parts_of_a_second_are_refused(tmp_path: Path, per_second: int, said: str) -> None:
    rows = [f"u\ti{day}\t{(1_400_000_000 + day * 86_400) * per_second}" for day in range(3)]
    path = put(tmp_path, inter=[HEADER, *rows])
    assert f"timestamps in {said}, not in seconds; divide them by {per_second:,}, or let" in refusal(path)
    assert load(str(put(tmp_path, inter=[HEADER, *rows], meta='{"order_only": true}'))).order_only


def test_one_late_time_does_not_make_seconds_milliseconds(tmp_path: Path) -> None:
    assert load(str(put(tmp_path, inter=[HEADER, *ROWS, "u2\tC\t1400000000000"]))).timestamps[-1] == 1.4e12


def test_users_with_one_interaction_load(tmp_path: Path) -> None:
    data = load(str(put(tmp_path, inter=[HEADER, *ROWS, "lone\tA\t1"])))
    assert data.user_keys.tolist() == ["lone", "u10", "u2"] and data.sequences[0].tolist() == [1]


def test_items_left_out_of_the_item_file_have_no_text_and_are_counted(tmp_path: Path) -> None:
    described = load(str(put(tmp_path, inter=[HEADER, *ROWS], item=ITEMS)))
    assert described.item_text[2] == "" and described.meta["undescribed_items"] == 1  # B
    assert load(str(put(tmp_path / "plain", inter=[HEADER, *ROWS]))).meta["undescribed_items"] == 0


TITLES = ["שלום עולם \u202eabc", "مرحبا 👩‍👩‍👧 café", "é\u0301\u2028x\x85y", "x" * 10_000]


def test_any_title_survives_loading_and_preparing(tmp_path: Path) -> None:
    rows = [HEADER, *(f"ü{user}\t{item}\t{user}" for user in range(2) for item in range(4))]
    items = ["item_id:token\ttitle:token_seq", *(f"{item}\t{title}" for item, title in enumerate(TITLES))]
    source = put(tmp_path, inter=rows, item=items)
    assert load(str(source)).item_text[1:] == TITLES
    prepare(source, tmp_path / "made", k_core=2)
    made = load(str(tmp_path / "made"))
    assert made.item_text[1:] == TITLES and made.user_keys.tolist() == ["ü0", "ü1"]


def test_a_name_does_not_lead_out_of_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "outside", inter=[HEADER, *ROWS])
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("a/../../outside", "../outside/../outside2", "..", "../data"):
        refusal(name, tmp_path / "data")
    assert refusal("a/../../outside", tmp_path / "data") == (
        "a/../../outside does not exist; give a folder that holds NAME.inter, or that file itself"
    )


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, inter=[HEADER, *ROWS])
    (path / "toy.inter").write_bytes((HEADER + "\nu\tcaf\xe9\t3\n").encode("latin-1"))
    assert "is not UTF-8 text" in refusal(path)


def test_an_interrupted_copy_is_told_by_its_hash(tmp_path: Path) -> None:
    whole = ("\n".join([HEADER, *ROWS]) + "\n").encode()
    path = put(tmp_path, meta=json.dumps({"sha256": {"toy.inter": hashlib.sha256(whole).hexdigest()}}))
    (path / "toy.inter").write_bytes(whole)
    assert load(str(path)).n_items == 3
    (path / "toy.inter").write_bytes(whole[: -len("u2\tA\t5\n")])  # cut between two rows
    assert refusal(path).endswith("toy.inter is damaged or was changed (its sha256 is not the one in dataset.json); "
                                  "fetch it again")  # fmt: skip


def test_names_and_aliases() -> None:
    aliases = {"beauty": "amazon14-beauty", "toys": "amazon14-toys", "sports": "amazon14-sports"}
    aliases |= {"instruments": "amazon18-instruments", "arts": "amazon18-arts", "games": "amazon18-games"}
    assert {name: resolve(name) for name in aliases} == aliases
    assert {entry.alias for entry in CATALOGUE.values()} == {*aliases, None}
    assert all(resolve(name) == name for name in CATALOGUE)


@pytest.mark.parametrize(("typed", "nearest"), [("beuaty", "beauty"), ("Amazon14-toys", "amazon14-toys")])
def test_an_unknown_name_is_answered_with_the_nearest(typed: str, nearest: str) -> None:
    assert refusal(typed) == (
        f"unknown dataset {typed!r}; did you mean {nearest!r}? The path of a folder with NAME.inter works too"
    )


def test_data_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> int:
        return len(load("toy", tmp_path / "given").users)

    put(tmp_path / "cache" / "genrec-bench", inter=[HEADER, *ROWS[:3]])
    assert found() == 3
    monkeypatch.setenv("GENREC_DATA", str(tmp_path / "variable"))
    put(tmp_path / "variable", inter=[HEADER, *ROWS[:4]])
    assert found() == 4
    put(tmp_path / "given", inter=[HEADER, *ROWS])
    assert found() == 5


def test_a_known_name_found_nowhere_says_which_file_to_put_where(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("GENREC_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"amazon18-arts\.inter"):
        load("arts", tmp_path / "mine")
    said = refusal("arts", tmp_path / "mine")
    assert f"run `python run_all.py prepare amazon18-arts --data-dir {tmp_path / 'mine'}`, or put" in said
    assert "run `python run_all.py prepare ml-1m`, or put ml-1m.inter" in refusal("ml-1m")
    assert "`prepare` makes steam-5core instead; put steam.inter" in refusal("steam")
    assert f"put amazon18-arts.inter (and amazon18-arts.item, dataset.json) into {tmp_path / 'mine'}" in said
    assert "--data-dir or $GENREC_DATA" in said


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        f"{tmp_path / 'none'} does not exist; give a folder that holds NAME.inter, or that file itself"
    )
    (tmp_path / "a").mkdir()
    assert "holds 0 datasets (no .inter file)" in refusal(tmp_path / "a")
    for name in ("x", "y"):
        put(tmp_path, name, inter=[HEADER, *ROWS])
        (tmp_path / name / f"{name}.inter").rename(tmp_path / "a" / f"{name}.inter")
    assert "holds 2 datasets (x, y)" in refusal(tmp_path / "a")
    assert load(str(tmp_path / "a" / "y.inter")).name == "y"
    assert "is not an atomic file" in refusal(Path(__file__))


def test_a_known_name_must_have_the_known_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "steam", inter=[HEADER, *ROWS])
    monkeypatch.chdir(tmp_path)
    said = "where steam has 32,919 users, 14,330 items, 1,436,230 interactions; fetch it again, or give"
    assert said in refusal("steam", Path("."))
    assert said in refusal(tmp_path / "steam")
    put(tmp_path, "steam", inter=[HEADER, *ROWS, ROWS[0]])
    assert "holds 1 repeated (user, item) pairs; steam as published has none" in refusal("steam", tmp_path)


def test_the_list_says_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENREC_DATA", raising=False)
    put(tmp_path, "ml-1m", inter=[HEADER, *ROWS])
    found = {row.name: row.where for row in names(tmp_path)}
    assert list(found) == list(CATALOGUE)
    assert {name: where for name, where in found.items() if where} == {
        "demo": "built in",
        "ml-1m": str(tmp_path / "ml-1m"),
    }
    assert [line.split()[0] for line in describe(tmp_path)] == ["name", *CATALOGUE]
    assert "6,040   3,706     1,000,209" in describe(tmp_path)[-1]


def test_the_hash_changes_with_anything_that_can_change_a_result(tmp_path: Path) -> None:
    rows = [f"{HEADER}\twhere:token", *(f"{row}\tx" for row in ROWS)]
    data = load(str(put(tmp_path, inter=rows, item=ITEMS, meta='{"note": "a"}')))
    changed = {
        "user_keys": data.user_keys[::-1],
        "item_keys": np.array(["A", "B", "NB"]),
        "users": 3 - data.users,
        "items": data.items[::-1],
        "timestamps": data.timestamps + 1,
        "order_only": True,
        "item_text": ["", "a", "b", "c"],
        "item_fields": {},
        "categories": None,
        "presplit": np.zeros(5, np.int8),
        "labels": {"where": np.array(list("xxxxy"))},
        "meta": {"setrec_cutoffs": {"T1": "2013-12-07"}},
    }
    hashes = {name: content_hash(dataclasses.replace(data, **{name: value})) for name, value in changed.items()}
    assert len({data.sha256, *hashes.values()}) == len(changed) + 1
    assert content_hash(dataclasses.replace(data, name="other", meta={"note": "b"})) == data.sha256
    assert (
        data.sha256 == "51c641164c5e06ab9b6e4ac73b8fb74034d147a51dfbc4f00e77a7ad4ad33806"
    )  # the same on every platform and pandas


tokens = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\0"), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(tokens, tokens, tokens), min_size=1, max_size=8))
@example([('"u', "NA", '"quoted" from the start'), ("nan", '"', "null")])
def test_any_text_survives_the_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    folder = tmp_path_factory.mktemp("round")
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "title"], dtype=object)
    items = frame[["item_id", "title"]]
    types = {"user_id": "token", "item_id": "token", "title": "token_seq"}
    atomic.write(atomic.Tables("toy", frame[["user_id", "item_id"]], items, types, {"note": "é"}), folder)
    back = atomic.read(folder / "toy.inter")
    assert back.interactions.to_numpy().tolist() == [[user, item] for user, item, _ in rows]
    assert back.items is not None and back.items.to_numpy().tolist() == [[item, title] for _, item, title in rows]
    assert back.types == types and back.meta["note"] == "é"


def test_what_the_format_cannot_say_is_not_written(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": ["u"], "item_id": ["a\tb"]}, dtype=object)
    with pytest.raises(ValueError, match=r"column item_id of toy\.inter holds a tab, a line break or a zero byte"):
        atomic.write(atomic.Tables("toy", frame, None, {"user_id": "token", "item_id": "token"}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_recbole_reads_what_prepare_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("recbole")
    for old, new in {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}.items():
        monkeypatch.setattr(np, old, getattr(np, new), raising=False)
    tensorboard = ModuleType("torch.utils.tensorboard")
    tensorboard.SummaryWriter = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # RecBole reads the command line
    # RecBole takes the key NA for a missing value and a leading quote for quoting, and drops interactions of items
    # that .item does not describe.
    inter, items = (
        [row.replace("NA", "C").replace('\t"Best"', "\tBest") for row in x] for x in ([HEADER, *ROWS], ITEMS)
    )
    prepare(put(tmp_path, inter=inter, item=[*items, "B\tPot\t2\t\t"]), tmp_path / "made", k_core=1)
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "title"]}
    options = {"data_path": str(tmp_path), "load_col": columns, "use_gpu": False, "state": "ERROR"}
    config = importlib.import_module("recbole.config").Config(model="Pop", dataset="made", config_dict=options)
    theirs = importlib.import_module("recbole.data.utils").create_dataset(config)
    ours = load(str(tmp_path / "made"))
    feature = theirs.inter_feat
    pairs = zip(
        theirs.id2token("user_id", feature["user_id"]),
        theirs.id2token("item_id", feature["item_id"]),
        strict=True,
    )
    assert list(pairs) == list(zip(ours.user_keys[ours.users - 1], ours.item_keys[ours.items - 1], strict=True))
    assert list(feature["timestamp"]) == ours.timestamps.tolist()


def slow_filter(rows: list[tuple[str, str, int]], k: int) -> list[tuple[str, str, int]]:
    """First of every pair in time order, then drop one user or item too rare at a time, until none is."""
    kept: list[tuple[str, str, int]] = []
    for row in sorted(rows, key=lambda row: row[2]):
        if not any(row[:2] == other[:2] for other in kept):
            kept.append(row)
    while True:
        rare = [(side, row[side]) for row in kept for side in (0, 1) if sum(o[side] == row[side] for o in kept) < k]
        if not rare:
            return kept
        side, key = rare[0]
        kept = [row for row in kept if row[side] != key]


row = st.tuples(st.sampled_from(["u1", "u2", "u3", "u4"]), st.sampled_from(list("abcd")), st.integers(0, 3))


@settings(max_examples=80, deadline=None)
@given(st.lists(row, min_size=1, max_size=24), st.integers(1, 3))
def test_prepare_is_the_slow_filter(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple], k: int) -> None:
    folder = tmp_path_factory.mktemp("prepare")
    source = put(folder, inter=[HEADER, *("\t".join(map(str, row)) for row in rows)])
    expected = slow_filter(rows, k)
    if not expected:
        with pytest.raises(ValueError, match="nothing is left"):
            prepare(source, folder / "made", k_core=k)
        assert not (folder / "made").exists()
        return
    stats = prepare(source, folder / "made", k_core=k)
    written = (folder / "made" / "made.inter").read_text().splitlines()
    assert written == [HEADER, *("\t".join(map(str, row)) for row in expected)]
    users, items = {row[0] for row in expected}, {row[1] for row in expected}
    assert stats == {"users": len(users), "items": len(items), "interactions": len(expected)}


def test_core_keeps_order_and_needs_several_rounds() -> None:
    users = np.array([0, 0, 1, 1, 2, 2])
    items = np.array([0, 1, 1, 0, 1, 2])  # item 2 goes, then user 2
    assert core(users, items, 2).tolist() == [0, 1, 2, 3]
    assert core(users, items, 1).tolist() == [0, 1, 2, 3, 4, 5]


def test_prepared_data_load_and_prepare_keeps_what_it_does_not_filter(tmp_path: Path) -> None:
    source = put(tmp_path, inter=[HEADER, *ROWS, ROWS[0]], item=ITEMS, meta='{"note": "mine", "k_core": 9}')
    assert prepare(source, tmp_path / "made", name="named", k_core=2) == {
        "users": 2,
        "items": 2,
        "interactions": 4,
    }
    data = load(str(tmp_path / "made"))
    assert data.name == "named" and data.item_text == ["", '"Best" mug, 3" wide. Acme. Shop > Tea > Mugs', ""]
    assert [data.meta[key] for key in ("note", "k_core", "time", "users")] == ["mine", 2, "unix seconds", 2]
    assert (tmp_path / "made" / "named.item").read_text().splitlines() == ITEMS[:2]


def test_prepare_refuses_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put(tmp_path, inter=[HEADER, *ROWS])
    (tmp_path / "made").mkdir()
    with pytest.raises(ValueError, match="exists already; choose a new folder"):
        prepare(source, tmp_path / "made")
    split = put(
        tmp_path / "2",
        train_inter=[HEADER, *ROWS],
        valid_inter=[HEADER, ROWS[0]],
        test_inter=[HEADER, ROWS[1]],
    )
    with pytest.raises(ValueError, match="is split already and split data are never filtered"):
        prepare(split, tmp_path / "new")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "write", full)
    with pytest.raises(OSError, match="no space left while writing"):
        prepare(source, tmp_path / "new", k_core=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "made", "toy"]


REAL = {
    "ml-100k": ("1", "Toy Story. Animation Children's Comedy", False),
    "amazon14-beauty": (
        "B004756YJA",
        "OPI Nail Lacquer, Simmer and Shimmer, 0.5-Fluid Ounce. OPI. Beauty > Makeup > Nails > Nail Polish",
        False,
    ),
    "amazon14-toys": (
        "B00A850V92",
        "LEGO Star Wars Clone Troopers vs Droidekas 75000. Toys & Games > Building Toys > Building Sets",
        False,
    ),
    "amazon14-sports": (
        "1881509818",
        "Ghost. Sports & Outdoors > Hunting & Fishing > Hunting > Gun Maintenance > Gunsmithing Tools. "
        "ghost armorers tool 332 punch hunting fishing",
        False,
    ),
    "amazon18-games": (
        "B00E1A1SP6",
        "Nintendo 3DS XL - Black [Old Model]. Video Games > Nintendo 3DS & 2DS > Consoles",
        True,
    ),
    "amazon18-instruments": ("B000FFWZKI", "", True),
    "steam": ("i5329", "", True),
}
SLOW = ("steam",)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in REAL])
def test_real_data_are_as_published(name: str) -> None:
    root = os.environ.get("GENREC_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"$GENREC_DATA holds no {name}")
    data = load(name)
    found = {"users": data.n_users, "items": data.n_items, "interactions": len(data.users)}
    assert found == CATALOGUE[name].statistics
    assert data.user_keys.tolist() == sorted(set(data.user_keys)) and data.item_keys.tolist() == sorted(
        set(data.item_keys)
    )
    users, times = data.users[data.chronological], data.timestamps[data.chronological]
    assert np.all((np.diff(times) >= 0) | (np.diff(users) == 1)) and users[0] == 1
    assert np.bincount(data.users)[1:].min() >= 5
    key, text, order_only = REAL[name]
    assert data.item_text[1 + data.item_keys.tolist().index(key)] == text
    assert data.order_only is order_only and len(data.item_text) == data.n_items + 1
