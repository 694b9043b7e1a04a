"""What to cite for a table: BibTeX of the suite, its methods, its data, and what they were made with.

names -> keys -> entries of ``citations.bib``. Nothing is invented: what has no entry gets a comment that names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

from benchmark.datasets.catalogue import ALIASES, DEMO
from benchmark.files import write_atomically
from benchmark.records import Record

FILE = "citations.bib"
SUITE = "genrecbench"
"""The key of the suite itself."""
_SASREC, _HEURISTIC, _SETREC = "kang2018sasrec", "han2026heuristic", "lin2025setrec"

METHODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "popularity": (),
        "markov": (),
        "itemknn": ("deshpande2004itemknn",),
        "graph": (_HEURISTIC,),
        "tgh": (_HEURISTIC,),
        "sasrec": (_SASREC, "klenitskiy2023loss"),
        "sasrec@bce": (_SASREC,),
        "sasrec@gbce": (_SASREC, "petrov2023gsasrec"),
        "recbole": ("zhao2021recbole",),
        "recbole:GRU4Rec": ("hidasi2016gru4rec",),
        "recbole:SASRec": (_SASREC,),
        "recbole:BERT4Rec": ("sun2019bert4rec",),
        "recbole:S3Rec": ("zhou2020s3rec",),
        "recbole:Caser": ("tang2018caser",),
        "recbole:HGN": ("ma2019hgn",),
        "recbole:BPR": ("rendle2009bpr",),
        "recbole:LightGCN": ("he2020lightgcn",),
        "recbole:ItemKNN": ("deshpande2004itemknn",),
        "recbole:Pop": (),
        "tiger": ("rajput2023tiger",),
        "letter": ("wang2024letter",),
        "genplugin": ("yang2025genplugin",),
        "setrec": (_SETREC,),
        "simgr": ("zhao2026simgr",),
    }
)
"""Keys by ``room``, ``room:argument`` or ``room@preset``; () = made for this suite. A preset that is named here takes
the place of its room's keys, an argument adds to them, and so does a method that another one is built around."""

_AMAZON14 = ("he2016ups", "mcauley2015image")
_AMAZON18 = ("ni2019amazon", "zheng2024lcrec")
_WITH_IMAGE = ("ni2019amazon", "zhai2025mql4grec")
_MOVIELENS = ("harper2015movielens",)
DATASETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        DEMO: (),
        **dict.fromkeys(("amazon14-beauty", "amazon14-toys", "amazon14-sports"), _AMAZON14),
        **dict.fromkeys(("amazon18-instruments", "amazon18-arts", "amazon18-games"), _AMAZON18),
        **dict.fromkeys(("amazon18-instruments-img", "amazon18-arts-img"), _WITH_IMAGE),
        "steam": (_SASREC, _SETREC),
        **dict.fromkeys(("ml-100k", "ml-1m"), _MOVIELENS),
    }
)
"""Keys by full name: who published the data, then who prepared them so."""

PROTOCOLS: Mapping[str, tuple[str, ...]] = MappingProxyType({"loo": (), "warmcold": (), "warmcold-setrec": (_SETREC,)})
MODELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "lsa": (),
        "all-MiniLM-L6-v2": ("reimers2019sbert", "wang2020minilm"),
        "sentence-t5-base": ("ni2022sentencet5",),
        "t5-small": ("raffel2020t5",),
        "gpt2": ("radford2019gpt2",),
        **dict.fromkeys(("qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b"), ("qwen2024qwen25",)),
        **dict.fromkeys(("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"), ("qwen2025qwen3",)),
    }
)
"""Text encoders, and pre-trained language models by the preset that names them."""


@cache
def entries() -> Mapping[str, str]:
    """Every entry of ``citations.bib`` by its key."""
    text = Path(__file__).with_name(FILE).read_text(encoding="utf-8")
    return MappingProxyType({one[1]: one[0] for one in re.finditer(r"^@\w+\{([^,]+),.*?^\}$", text, re.M | re.S)})


def keys_of(name: str) -> tuple[str, ...] | None:
    """What to cite for a method, dataset, protocol or pre-trained model; None = it is not of this suite."""
    full = ALIASES.get(name, name)
    for table in (DATASETS, PROTOCOLS, MODELS):
        if full in table:
            return table[full]
    model = full.rpartition("/")[2]  # a hub name: who uploaded it / what it is
    return MODELS[model] if model in MODELS else _keys_of_method(name)


def _keys_of_method(name: str) -> tuple[str, ...] | None:
    """Of ``room[:argument][@preset]``; None too where the method is built around one that is not known here."""
    spec, _, preset = name.partition("@")
    room, _, argument = spec.partition(":")
    if room not in METHODS:
        return None
    found = METHODS.get(f"{spec}@{preset}", METHODS[room])
    if argument:
        inner = METHODS.get(spec, METHODS.get(argument))
        if inner is None:
            return None
        found += inner
    return found + MODELS.get(preset, ())


def cite(names: Iterable[str]) -> str:
    """BibTeX of what stands in a table: one comment line for every name, then each entry once, sorted by key.

    Names are those of the tables: methods, datasets (also by alias), protocols, text encoders and language models. One
    that is not of this suite gets a comment and no entry.
    """
    found = {name: keys_of(name) for name in names}
    told = [f"% {_harmless(name)}: {_told(found[name])}" for name in sorted(found)]
    keys = sorted({key for some in found.values() for key in some or ()} | {SUITE}, key=lambda key: (key != SUITE, key))
    return "\n".join(told) + "\n\n" + "\n\n".join(entries()[key] for key in keys) + "\n"


def _told(keys: Sequence[str] | None) -> str:
    if keys is None:
        return "not of this suite, so there is no entry here; ask its authors what to cite"
    return ", ".join(keys) if keys else f"made for this suite, {SUITE}"


def _harmless(name: str) -> str:
    """A name as a comment: BibTeX knows none, and takes any at-sign outside an entry for the start of one."""
    return " ".join("".join(c if c.isprintable() else " " for c in name.replace("@", " at ")).split())


def write_citations(records: Sequence[Record], folder: Path) -> Path:
    """``citations.bib`` in the folder of the tables that these runs stand in: methods, data, protocol, models."""
    names = {name for record in records for name in _named_by(record)}
    write_atomically(folder / FILE, cite(names).encode())
    return folder / FILE


def _named_by(record: Record) -> list[str]:
    """All that one run was made of and that somebody may want to cite."""
    encoder, model = record.fields["text_encoder"], record.fields["config"].get("language_model")
    names = [record.method, record.dataset, record.protocol["name"], *([encoder["name"]] if encoder else [])]
    if isinstance(model, dict) and str(model.get("name")) in MODELS:  # an imported run may say anything there
        names.append(model["name"])
    return names
