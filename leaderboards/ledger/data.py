"""What the ledger sets beside our runs: published figures, other people's reruns, and which run answers which figure.

The figures lie in ``published_figures.csv`` and ``other_reruns.csv``, as printed, each with its source.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmark.records import Record

GROUPED_LIKE_GENPLUGIN = "target popularity (all interactions)"
"""The slice that cuts heads and tails as the papers that print them do."""
SETTINGS = ("warm", "cold")
SMALLER, SHORTER = "smaller model", "short training"
"""How a small run stands to a paper's: a smaller network than it names; it names none, and ours was trained shorter."""
RERUN_PROTOCOL = "loo"
"""All known reruns are of it."""


@dataclass(frozen=True)
class Figure:
    """One number as a paper prints it; ``table`` names every table of the paper that prints it."""

    paper: str
    table: str
    protocol: str
    dataset: str
    subset: str
    """all, warm, cold, head or tail."""
    method: str
    backbone: str
    """"" = the paper names none, or the method has none."""
    metric: str
    """As printed: HR@10, Recall@10 or NDCG@10."""
    value: float
    beam_size: str

    @property
    def name(self) -> str:
        """The metric as records call it; with one target per user hr@k is recall@k."""
        kind, _, k = self.metric.partition("@")
        return f"{'recall' if kind == 'HR' else kind.lower()}@{k}"

    @property
    def source(self) -> str:
        return f"{self.paper}, {self.table}"

    @property
    def row(self) -> tuple[str, ...]:
        """What the figures of one line of a table share."""
        return self.paper, self.protocol, self.dataset, self.subset, self.method, self.backbone, self.beam_size


@dataclass(frozen=True)
class Rerun:
    """One number that somebody reports who ran a published method again."""

    source: str
    dataset: str
    method: str
    details: str
    metric: str
    value: float
    fault: str
    """What is known to be wrong with it; "" = nothing."""


@dataclass(frozen=True)
class Match:
    """Which of our methods answers figures of a published one."""

    published: str
    ours: str
    why: str
    papers: tuple[str, ...] = ()
    """Only figures of these papers; empty = of all."""
    reruns: str = ""
    """What ``other_reruns.csv`` calls the same thing; "" = nobody's rerun is known."""
    closest: bool = True
    """Whether it is what the paper ran, as far as is known, or another version worth seeing beside it."""


_FAMILY = "the figures are of the four-level rebuild with codes only, which the unified track follows"
_OWN = "the unified track is the four-level rebuild, the paper track has the paper's user token, last digit and width"
_STEP = "the same step of the plug-in's ablation"
MATCHES = (
    Match("TIGER", "tiger", _OWN, ("TIGER",), "TIGER"),
    Match("TIGER", "tiger", _FAMILY, ("GenPlugin", "SimGR")),
    Match("TIGER", "tiger", "token sequences on SETRec's own time split", ("SETRec",)),
    Match("LETTER", "letter", "LETTER around TIGER's T5; the paper's instance on LC-Rec is another method"),
    *(
        Match(published.format(base), f"genplugin:{base.lower()}{preset}", why)
        for base in ("TIGER", "LETTER")
        for published, preset, why in (
            ("{}++", "", "the whole plug-in"),
            ("{}+DSA", "@dsa", _STEP),
            ("{}+DSA+SSG", "@no-rar", _STEP),
        )
    ),
    Match(
        "SASRec",
        "sasrec@bce",
        "no loss is named; an author of LETTER says that the tables of this family have the binary one",
        ("GenPlugin",),
        "SASRec",
    ),
    Match(
        "SASRec", "recbole:SASRec", "the paper runs RecBole, by default with cross-entropy", ("SimGR",), "SASRec (CE)"
    ),
    Match("SASRec", "recbole:SASRec", "RecBole's default: cross-entropy", ("GenPlugin",), "SASRec (CE)", closest=False),
    Match("SASRec", "sasrec", "cross-entropy over the catalogue", reruns="SASRec (CE)", closest=False),
    Match("SASRec", "sasrec@bce", "the binary loss of the original", ("SimGR",), "SASRec", closest=False),
    Match("GRU4Rec", "recbole:GRU4Rec", "RecBole's default: cross-entropy; GenPlugin names no loss, SimGR ran RecBole"),
    Match("GRU4Rec", "recbole:GRU4Rec@bpr", "the pairwise loss", closest=False),
    Match("BERT4Rec", "recbole:BERT4Rec", "RecBole's model and defaults"),
    Match("S3-Rec", "recbole:S3Rec", "RecBole's model and defaults"),
    Match("Caser", "recbole:Caser", "RecBole's model and defaults"),
    Match("HGN", "recbole:HGN", "RecBole's model and defaults"),
    Match("SimGR", "simgr", "the mean of an item's tokens, which the paper chooses"),
    Match("SimGR[mean]", "simgr", "the paper's choice is the default"),
    *(
        Match(f"SimGR[{how}]", f"simgr@{how}", "the same aggregator")
        for how in ("concat", "proj", "attention", "gating")
    ),
    Match("SETRec", "setrec", "the whole method"),
)
RERUN_ONLY = (Match("SASRec (sampled softmax)", "sasrec@sampled", "", reruns="SASRec (sampled softmax)"),)
"""No paper of the file prints it, others did run it."""
BACKBONES = {
    "T5-small": "t5-small",
    "Qwen2.5-1.5B": "qwen2.5-1.5b",
    "Qwen2.5-3B": "qwen2.5-3b",
    "Qwen2.5-7B": "qwen2.5-7b",
    "Qwen3-4B": "qwen3-4b",
}
"""Printed backbones that are presets of ours; those that are not are the full size of the method itself."""
SIZES = ("scratch-xs", "scratch-s", "scratch-s-t5", "gpt2", "qwen3-0.6b", "qwen3-1.7b", *BACKBONES.values())
"""Presets that name a backbone and nothing else."""


@dataclass(frozen=True)
class Reason:
    """Why figures are known to differ, for runs of these methods (``ours`` or a base of them), papers, data, sizes."""

    ours: str
    text: str
    papers: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    tracks: tuple[str, ...] = ()

    def holds(self, record: Record, figure: Figure) -> bool:
        return (
            record.method.startswith(self.ours)
            and (not self.papers or figure.paper in self.papers)
            and (not self.datasets or figure.dataset in self.datasets)
            and (not self.profiles or record.fields["profile"] in self.profiles)
            and (not self.tracks or record.fields["track"] in self.tracks)
        )


_LOWER = ("small", "smoke")
_SHORT = "a far smaller T5 with a far shorter training"
_COPIED = (
    "several classical rows of the paper break their own arithmetic; where they come from and their loss are unnamed"
)
_UNREACHED = "nobody is known to have reached these of the paper; other item text is suspected"
REASONS = (
    Reason("tiger", f"{_SHORT}; {_UNREACHED}", ("TIGER",), ("amazon14-toys",), _LOWER),
    Reason("tiger", _UNREACHED, ("TIGER",), ("amazon14-toys",)),
    Reason(
        "tiger",
        f"{_SHORT}, and the rebuild without the user token and the last digit of the paper's own (docs/tiger.md)",
        ("TIGER",),
        profiles=_LOWER,
        tracks=("unified",),
    ),
    Reason("tiger", f"{_SHORT} (docs/tiger.md)", ("TIGER", "GenPlugin", "SimGR"), profiles=_LOWER),
    Reason(
        "tiger",
        "SETRec fine-tunes pre-trained language models and keeps the checkpoint of the lowest loss; ours starts from "
        "scratch and keeps the one of the highest validation ndcg@10",
        ("SETRec",),
        profiles=_LOWER,
    ),
    Reason(
        "letter",
        f"{_SHORT}; its identifiers barely differ from TIGER's at this size (docs/letter.md)",
        datasets=("amazon14-beauty",),
        profiles=_LOWER,
    ),
    Reason("letter", _SHORT, profiles=_LOWER),
    Reason(
        "genplugin",
        f"{_SHORT}; the alignment outweighs the codes' loss at the start, which so short a training does not outgrow "
        "(measured on Beauty, docs/genplugin.md)",
        profiles=_LOWER,
    ),
    Reason(
        "genplugin",
        "the printed plug-in has another recipe than its base seems to have, so part of the gain may be the recipe's",
    ),
    Reason(
        "sasrec@bce",
        "one drawn negative a position learns slowly and goes flat early; the same loss with larger batches at a lower "
        "rate rises for hundreds of epochs (docs/sasrec.md)",
        profiles=_LOWER,
    ),
    *(
        Reason(
            room,
            "another loss, as far as is known: cross-entropy, which lifts SASRec far above rows of the binary one",
            ("GenPlugin",),
        )
        for room in ("sasrec", "recbole:SASRec")
    ),
    Reason("recbole:GRU4Rec@bpr", "one drawn negative per target is a weak signal"),
    Reason("recbole:GRU4Rec", _COPIED, ("GenPlugin",)),
    Reason(
        "recbole:BERT4Rec",
        "BERT4Rec needs many times the default training; short runs are far from done",
        profiles=_LOWER,
    ),
    Reason(
        "recbole:S3Rec",
        f"{_COPIED}; ours learns by cross-entropy after a short pre-training",
        ("GenPlugin",),
        profiles=_LOWER,
    ),
    Reason(
        "setrec",
        "the paper starts from pre-trained models, and its released script picks beta on the test users",
        profiles=_LOWER,
    ),
    Reason("simgr", "the paper tunes a pre-trained language model of billions of weights", profiles=_LOWER),
)
"""The first that holds is told."""


@cache
def figures() -> tuple[Figure, ...]:
    """Every published figure; numbers that several tables of a paper repeat are one figure."""
    merged: dict[tuple[str, ...], Figure] = {}
    for line in _lines("published_figures.csv"):
        printed = line["value"]
        one = Figure(**{**line, "value": float(printed)})  # type: ignore[arg-type]
        key = (*one.row, one.metric, printed)
        before = merged.get(key)
        table = one.table if before is None else f"{before.table}, {one.table.removeprefix('Table ')}"
        merged[key] = Figure(**{**vars(one), "table": table.replace("Table ", "Tables ") if before else table})
    return tuple(merged.values())


@cache
def reruns() -> tuple[Rerun, ...]:
    """Every rerun, in the order of the file."""
    return tuple(Rerun(**{**line, "value": float(line["value"])}) for line in _lines("other_reruns.csv"))  # type: ignore[arg-type]


def _lines(name: str) -> list[dict[str, str]]:
    with Path(__file__).with_name(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def matches(figure: Figure) -> list[Match]:
    """The methods of ours that answer a figure, the closest first."""
    found = [m for m in MATCHES if m.published == figure.method and (not m.papers or figure.paper in m.papers)]
    return sorted(found, key=lambda m: not m.closest)


def answers(record: Record, match: Match) -> bool:
    """Whether a run is of the matched method, in whatever size."""
    name, _, preset = record.method.partition("@")
    return record.method == match.ours or (name == match.ours and preset in SIZES)


def size_of(record: Record, figure: Figure) -> str:
    """How the run's size stands to the paper's: "" = as far as is known the same."""
    preset = record.method.partition("@")[2]
    if record.fields["profile"] != "full":
        return SMALLER if figure.backbone else SHORTER
    wanted = BACKBONES.get(figure.backbone, "")
    return "" if (preset if preset in SIZES else "") == wanted else "another backbone"


def known_reason(record: Record, figure: Figure) -> str:
    return next((reason.text for reason in REASONS if reason.holds(record, figure)), "")


def others(match: Match, figure: Figure) -> list[float]:
    """What other people got with the same thing, without reruns that are known to be faulty."""
    if figure.subset != "all" or figure.protocol != RERUN_PROTOCOL:
        return []
    same = [r for r in reruns() if match.reruns and r.method == match.reruns and not r.fault]
    return [r.value for r in same if (r.dataset, r.metric) == (figure.dataset, figure.name)]
