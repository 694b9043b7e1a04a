"""A Markdown table whose columns are laid out by what is in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tabulate import tabulate

_NUMBER = re.compile(r"[-.]|[+-]?[\d,]+(\.\d+)?( ?%| [^\w ]| \(\d+\))?|<\d\.\d+")
"""A number, perhaps with a sign, a percent, a mark or another number in brackets; or what stands for none."""


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, columns of numbers to the right and all others to the left, a bar in a cell escaped."""
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    align = ["right" if cells and all(map(_NUMBER.fullmatch, cells)) else "left" for cells in columns]
    clean = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(clean, header, tablefmt="pipe", disable_numparse=True, colalign=align if rows else None)
