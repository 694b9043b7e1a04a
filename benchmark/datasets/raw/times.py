"""One point in time as a raw file writes it -> Unix seconds."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, time
from functools import lru_cache

from benchmark.datasets.times import FINER, LATEST

DATES = "dates"
"""The unit of a time that was written as a date."""

MAX_DIGITS = len(str(int(LATEST)))

_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.*)?", re.ASCII)


def whole_seconds(value: object) -> int | None:
    """A whole number of Unix seconds from 0 to LATEST, or its decimal text; None for anything else."""
    digits = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= MAX_DIGITS
    if digits or (isinstance(value, float) and value.is_integer()):
        value = int(value)  # type: ignore[call-overload]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LATEST:
        return value
    return None


@lru_cache(maxsize=1 << 16)  # dates repeat
def iso_seconds(text: str) -> float | None:
    """``2014-03-01`` or ``2014-03-01T10:00:00``, UTC unless it names its offset; None for anything else or < 1970."""
    if not _ISO.fullmatch(text):
        return None
    try:
        return _moment(datetime.fromisoformat(text))
    except ValueError:
        return None


def any_seconds(value: object) -> tuple[float, str] | None:
    """Unix seconds of a number, a date or the text of either, and the unit it was in; None for anything else.

    A number too large for seconds is one of milli-, micro- or nanoseconds; "" stands for seconds.
    """
    if isinstance(value, date):  # a datetime is one too
        seconds = _moment(value if isinstance(value, datetime) else datetime.combine(value, time()))
        return None if seconds is None else (seconds, DATES)
    if isinstance(value, str) and (seconds := iso_seconds(value.strip())) is not None:
        return seconds, DATES
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    if not 0 <= number < math.inf:
        return None
    per, unit = next((finer for finer in FINER if number > LATEST * finer[0] / 1e3), (1.0, ""))
    return number / per, unit


def _moment(moment: datetime) -> float | None:
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds >= 0 else None
