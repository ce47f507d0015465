"""What a desktop shows about a run: pure, from the daemon's signals to notes.

The values come over D-Bus; they are read with defaults, and every line is made harmless once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from immich_usb_backup.model import Outcome
from immich_usb_backup.policy.text import harmless, harmless_lines

_LINES_SHOWN = 12
_LONGEST_LINE = 300

Values = Mapping[str, Any]


class Urgency(Enum):
    """As org.freedesktop.Notifications has it."""

    LOW = 0
    NORMAL = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A notification in plain text. ``percent`` is None where there is no bar. It stays until it is withdrawn."""

    summary: str
    body: str
    urgency: Urgency
    category: str
    icon: str
    percent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The run that the daemon works on. ``line`` and ``percent`` are empty until it says how far it is."""

    run_id: str
    disk: str
    uuid: str
    headline: str
    line: str = ""
    percent: int | None = None


def text(values: Values, key: str) -> str:
    """One line of text, empty where there is none."""
    value = values.get(key, "")
    return _cut(harmless(value)) if isinstance(value, str) else ""


def truth(values: Values, key: str, *, default: bool) -> bool:
    """Yes or no."""
    value = values.get(key, default)
    return value if isinstance(value, bool) else default


def run_of(values: Values) -> Run:
    """A run from ``RunStarted`` or ``GetState``, with its progress if that is in it."""
    disk = text(values, "disk")
    headline = text(values, "headline") or f"Backing up to '{disk}': please leave it plugged in"
    return Run(
        run_id=text(values, "run"),
        disk=disk,
        uuid=text(values, "uuid"),
        headline=headline,
        line=text(values, "line"),
        percent=percent(values),
    )


def percent(values: Values) -> int | None:
    """0 to 100; None where it is not known."""
    value = values.get("percent")
    known = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return min(value, 100) if known and isinstance(value, int) else None


def running(run: Run) -> Note:
    """A backup has begun, or is so far. Low urgency once it moves: an update must not pop up."""
    return Note(
        summary=run.headline,
        body=run.line,
        urgency=Urgency.LOW if run.line else Urgency.NORMAL,
        category="transfer",
        icon="drive-removable-media-usb",
        percent=run.percent,
    )


def finished(values: Values) -> Note:
    """The outcome. Anything but ``ok`` is something that a person has to see."""
    good = values.get("outcome") == Outcome.OK.value
    return Note(
        summary=text(values, "headline") or "A backup has ended",
        body=_body(values.get("todo"), values.get("body")),
        urgency=Urgency.NORMAL if good else Urgency.CRITICAL,
        category="transfer.complete" if good else "transfer.error",
        icon="drive-removable-media-usb" if good else "dialog-warning",
    )


def stopped(run: Run) -> Note:
    """The daemon went away in the middle of a run."""
    return Note(
        summary=f"Backup to '{run.disk}' stopped",
        body="The backup service ended in the middle of it. The disk may still be mounted: eject it before you unplug it."
        " The next time that it is plugged in, the backup is completed.",
        urgency=Urgency.CRITICAL,
        category="transfer.error",
        icon="dialog-warning",
    )


def _body(*parts: object) -> str:
    """What to do comes first: desktops cut off the end."""
    lines = [line for part in parts if isinstance(part, str) and part for line in harmless_lines(part)]
    shown = [_cut(line) for line in dict.fromkeys(lines)]
    more = ["…"] if len(shown) > _LINES_SHOWN else []
    return "\n".join([*shown[:_LINES_SHOWN], *more])


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"
