"""The datasets known by name: versions, aliases, and the statistics each must have when loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

DEMO = "demo"


@dataclass(frozen=True)
class Entry:
    """What a named dataset must be. Counts were taken from the published files, see each source."""

    users: int
    items: int
    interactions: int
    source: str
    alias: str | None = None
    extra_text: str | None = None
    """A field beyond title, brand and categories that closes the item text."""

    @property
    def statistics(self) -> dict[str, int]:
        return {"users": self.users, "items": self.items, "interactions": self.interactions}


_AMAZON14 = "Amazon reviews 2014, 5-core (McAuley, UCSD)"
_AMAZON18 = "Amazon reviews 2018, 5-core (Ni and McAuley, UCSD)"
_WITH_IMAGE = f"{_AMAZON18}, items with an image (GenPlugin, MQL4GRec)"
_MOVIELENS = "MovieLens (GroupLens)"

CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        DEMO: Entry(3000, 1136, 27025, "generated in memory, needs no file"),
        "amazon14-beauty": Entry(22363, 12101, 198502, _AMAZON14, "beauty"),
        "amazon14-toys": Entry(19412, 11924, 167597, _AMAZON14, "toys"),
        # Sports has no titles; a model wrote its key phrases, so the text is flagged by naming the field.
        "amazon14-sports": Entry(35598, 18357, 296337, _AMAZON14, "sports", extra_text="keyphrase"),
        "amazon18-instruments": Entry(24772, 9922, 206153, _AMAZON18, "instruments"),
        "amazon18-arts": Entry(45141, 20956, 390832, _AMAZON18, "arts"),
        "amazon18-games": Entry(50546, 16859, 452989, _AMAZON18, "games"),
        "amazon18-instruments-img": Entry(17112, 6250, 136226, _WITH_IMAGE),
        "amazon18-arts-img": Entry(22171, 9416, 174079, _WITH_IMAGE),
        "steam": Entry(32919, 14330, 1436230, "Steam reviews (Kang and McAuley), as SETRec prepared them"),
        "ml-100k": Entry(943, 1682, 100000, _MOVIELENS),
        "ml-1m": Entry(6040, 3706, 1000209, _MOVIELENS),
    }
)

ALIASES: Mapping[str, str] = MappingProxyType(
    {entry.alias: name for name, entry in CATALOGUE.items() if entry.alias is not None}
)


def resolve(name: str) -> str:
    """Name or alias -> full name. Raises ValueError with the nearest known name for anything else."""
    if name in CATALOGUE:
        return name
    if name in ALIASES:
        return ALIASES[name]
    nearest = get_close_matches(name.lower(), [*CATALOGUE, *ALIASES], n=1, cutoff=0.5)
    guess = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(CATALOGUE)}."
    raise ValueError(f"unknown dataset {name!r}; {guess} The path of a folder with NAME.inter works too")
