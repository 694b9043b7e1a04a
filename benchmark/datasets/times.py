"""Timestamps: what is refused when data are loaded, and what `prepare` turns into Unix seconds."""

from __future__ import annotations

import numpy as np
import pandas as pd

FINER: tuple[tuple[float, str], ...] = ((1e9, "nanoseconds"), (1e6, "microseconds"), (1e3, "milliseconds"))
"""Parts of a second, finest first."""
LATEST = 1e11
"""Unix seconds reach it in the year 5138; milliseconds did in 1973."""


def parsed(column: pd.Series, where: str) -> np.ndarray:
    """(T,) float64. Raises ValueError naming the first value that is missing, no finite number or negative."""
    times = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    bad = ~(np.isfinite(times) & (times >= 0))
    if bad.any():
        place = int(bad.argmax())
        raise ValueError(f"{where}: interaction {place + 1} {_wrong(column.iloc[place], times[place])}")
    return times


def _wrong(value: str, time: float) -> str:
    if not value.strip():
        return "has no timestamp; give it one, or leave the whole column out where only the order is known"
    if time < 0:
        return f"has the timestamp {value!r}, which is before 1970; timestamps are Unix seconds from 0"
    return (
        f"has the timestamp {value!r}, which is not a number; timestamps are Unix seconds "
        f"(`python run_all.py prepare` converts ISO dates such as 2014-01-31)"
    )


def refuse_finer(times: np.ndarray, where: str) -> np.ndarray:
    """``times`` (T,) unless half of them lie so far ahead that they must be parts of a second."""
    if finer := _unit(times):
        raise ValueError(
            f"{where} has timestamps in {finer[1]}, not in seconds; divide them by {finer[0]:,.0f}, "
            f"or let `python run_all.py prepare` do it"
        )
    return times


def _unit(times: np.ndarray) -> tuple[float, str] | None:
    """How many of the unit make a second and its name, None for seconds."""
    middle = float(np.median(times)) if len(times) else 0.0
    return next(((per, name) for per, name in FINER if middle > LATEST * per / 1e3), None)


def in_seconds(column: pd.Series, where: str) -> tuple[pd.Series, str]:
    """The column as Unix seconds, and what was done to it: "" when nothing was.

    ISO dates are read as UTC. Raises ValueError as `parsed` does, and for text that is no date.
    """
    if pd.to_numeric(column, errors="coerce").isna().all():
        stamps = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
        seconds = (stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)  # NaN for what is no date
        times = parsed(column.where(stamps.isna(), seconds.astype(str)), where)
        return _as_text(times, column.index), "timestamps were dates and are Unix seconds (UTC) now"
    times = parsed(column, where)
    finer = _unit(times)
    if finer is None:
        return column, ""
    return _as_text(times / finer[0], column.index), f"timestamps were {finer[1]} and are seconds now"


def _as_text(times: np.ndarray, index: pd.Index) -> pd.Series:
    return pd.Series([np.format_float_positional(time, trim="-") for time in times], index=index, dtype=object)
