"""How values are shown to people: sizes, durations, names from foreign disks, and event templates."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_UNITS = ("kB", "MB", "GB", "TB", "PB")
_SHOWN_AT_MOST = 120


def size(number: float) -> str:
    """Bytes in decimal units, as file managers show them: ``999 B``, ``1.5 MB``, ``2.0 TB``."""
    if number < 1000:
        return f"{int(number)} B"
    value = float(number)
    for unit in _UNITS:
        value /= 1000
        if value < 999.95 or unit == _UNITS[-1]:
            return f"{value:.1f} {unit}"
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """``1 file``, ``2 files``, ``41,203 photos``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def moment(when: datetime, zone: datetime | None = None) -> str:
    """A time for people, in the zone of ``zone`` (default: the machine's)."""
    local = when.astimezone(zone.tzinfo if zone else None)
    return f"{local:%d %B %Y, %H:%M}"


def printable(text: str | bytes) -> str:
    """Foreign text made harmless for one line: no control or direction-changing characters, bounded length.

    Undecodable bytes show as ``\\xNN``. Never raises.
    """
    decoded = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    safe = harmless(decoded)
    return safe if len(safe) <= _SHOWN_AT_MOST else safe[: _SHOWN_AT_MOST - 1] + "…"


def harmless(text: str) -> str:
    """One line of text of any length without control, direction-changing or undecodable characters."""
    return "".join(c if _harmless(c) else _escaped(c) for c in text)


def harmless_lines(text: str) -> tuple[str, ...]:
    """The same for several lines; only a line feed ends one."""
    return tuple(harmless(line) for line in text.split("\n"))


def _harmless(character: str) -> bool:
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, kept by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\u{code:04x}")


def sentence(*parts: str) -> str:
    """The non-empty parts, each ended with a full stop, in one line."""
    return " ".join(p if p[-1] in ".!?" else p + "." for p in (part.strip() for part in parts) if p)


class _Filler(string.Formatter):
    """``{x:size}``, ``{x:duration}``, ``{x:quote}``; anything else is made printable. A missing field shows as ``?``."""

    def get_value(self, key: int | str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        del args  # templates have named fields only
        return kwargs.get(str(key), "?")

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "size" and isinstance(value, int | float):
            return size(value)
        if format_spec == "duration" and isinstance(value, int | float):
            return duration(value)
        if format_spec == "quote":
            return f"'{printable(str(value))}'" if value else ""
        return "".join(c if c.isspace() or _harmless(c) else _escaped(c) for c in str(value))


def fill(template: str, fields: Mapping[str, Any]) -> str:
    """The template with its fields, as one clean line."""
    return " ".join(_Filler().vformat(template, (), fields).split())


def utc_stamp(when: datetime) -> str:
    """``20261121T024200Z``: sorts by time and is legal on every file system."""
    return f"{when.astimezone(UTC):%Y%m%dT%H%M%SZ}"
