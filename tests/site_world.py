"""A small site with everything on it: seeds, failures, settings, audits, documents, and a method that means harm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import protocols
from benchmark.records import Record
from leaderboards import tables
from leaderboards.chance import AgainstChance
from leaderboards.scores import SliceCell
from leaderboards.site import write_site
from leaderboards.summary import Summary, summarise
from leaderboards.targets import Asked
from tests.browser import Browser
from tests.test_tables import FAST, fake, some

HOSTILE = '</script><img src="x" onerror="window.harmed=1">&amp;\u202e"\'\u2028${1}'
"""A name that would run code, end a block, or turn the text around it."""
WARMCOLD = {"name": "warmcold", "version": 1, "hash": "other"}
AUDIT = """# toys: audit of ids

## Findings

**{hostile}** collides | often.

![a card](toys.ids-card.svg)

![gone](toys.ids-gone.svg)

## Codes

| method   |   codes |
|:---------|--------:|
| a \\| b  |   1,200 |
| {hostile} |     300 |
"""

LEDGER = """# Published and ours

*Nothing* is typed.

![points](ledger-x.svg)

![gone](no.svg)

| a   |   b |
|:----|----:|
| x   |   1 |
"""


PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'

EVERY_VIEW = (
    "const links = SITE.tables.flatMap((table) => tabsOf(table).map((tab) => linkTo(table, tab.key)));"
    "const see = (link) => { keep('replaceState', link); draw(); return document.querySelector('main'); };"
)
"""All places within the tables, and how to go to one."""


def found(root: Path) -> list[Record]:
    """Records of three tables: one with failures and a hostile name, one with three seeds, one with settings."""
    harmless = fake(root / "h", "tiger", 0.3, config={"note": HOSTILE})
    hostile = Record(harmless.folder, harmless.fields | {"method": HOSTILE})
    seeds = [fake(root, m, s, seed, "beauty") for m, s in (("sasrec", 0.4), ("markov", 0.2)) for seed in (0, 1, 2)]
    old = [fake(root / "w", m, s, protocol=WARMCOLD) for m, s in (("sasrec", 0.4), ("popularity", 0.1))]
    loo = protocols.load("loo")
    now = {"name": loo.name, "version": loo.version, "hash": loo.hash}
    return [*(Record(r.folder, r.fields | {"protocol": now}) for r in (*some(root), hostile, *seeds)), *old]


def summaries(records: list[Record]) -> list[Summary]:
    """As ``summarise`` makes them; the last protocol's rows get a warm and a cold setting."""
    plain = summarise([r for r in records if r.protocol["name"] == "loo"], **FAST)
    (apart,) = summarise([r for r in records if r.protocol["name"] != "loo"], **FAST)
    asked = {name: Asked(40, 60, 200, 0.05) for name in ("all", "warm", "cold")}
    cell = SliceCell(40, 0.02, (0.01, 0.03), 0.04)
    chance = AgainstChance(0.04, -0.01, (-0.02, 0.01), 3, "")
    rows = [
        replace(
            row,
            settings={"warm": cell, "cold": cell},
            chance=dict.fromkeys(asked, chance),
            metrics=row.metrics | {"ndcg@10/warm": 0.02, "ndcg@10/cold": 0.02},
        )
        for row in apart.rows
    ]
    return [*plain, replace(apart, rows=rows, settings=asked)]


def build(root: Path) -> tuple[Path, list[Summary]]:
    """The site's folder, and the summaries behind it."""
    records = found(root / "records")
    made = summaries(records)
    place = root / "tables" / "loo" / "unified-small"
    tables.write([one for one in made if one.shared["protocol"]["name"] == "loo"], place)
    (place / "toys.ids.md").write_text(AUDIT.format(hostile=HOSTILE))
    (place / "toys.ids-card.svg").write_text(PICTURE)
    (place / "citations.bib").write_text("% nothing\n")
    (place / "toys-2.csv").write_text("of another dataset")
    (root / "ledger.md").write_text(LEDGER)
    (root / "ledger.csv").write_text("a,b\nx,1\n")
    (root / "ledger-x.svg").write_text(PICTURE)
    write_site(records, root / "site", tables=root / "tables", ledger=root, summaries=made)
    return root / "site", made


def visit(browser: Browser, folder: Path, place: str) -> None:
    """Open the page from its file."""
    browser.open("about:blank")
    browser.open((folder / "index.html").as_uri() + place)


def go(browser: Browser, place: str) -> None:
    """Show another place of the open page."""
    browser.run("keep('replaceState', arguments[0]); draw()", place)


def too_wide(browser: Browser, places: list[str]) -> list[str]:
    """Those of the places that are wider than the window."""
    return browser.run(
        "return arguments[0].filter((place) => { keep('replaceState', place); draw();"
        "  return document.scrollingElement.scrollWidth > document.documentElement.clientWidth; })",
        places,
    )
