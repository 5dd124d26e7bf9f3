"""Durations as people write them: 45, 90s, 15m, 6h, 7d, 1h30m."""

from __future__ import annotations

import re

_UNITS_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def seconds(text: str) -> float:
    """Raises ValueError for what is no duration above 0."""
    text = text.strip()
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        total = sum(float(number) * _UNITS_SECONDS[unit] for number, unit in parts)
    elif re.fullmatch(r"\d+(\.\d+)?", text):
        total = float(text)
    else:
        raise ValueError("a duration is a number with s, m, h, d or w, such as 90s, 6h or 7d")
    if total <= 0:
        raise ValueError("a duration must be above 0")
    return total


def shown(seconds: float) -> str:
    """For people: 45 s, 1.5 h, 3 d."""
    unit = next((unit for unit in ("d", "h", "m") if seconds >= _UNITS_SECONDS[unit]), "s")
    return f"{round(seconds / _UNITS_SECONDS[unit], 1):g} {unit}"


def valid(text: str) -> str:
    """`text` unchanged, for settings. Raises ValueError."""
    seconds(text)
    return text
