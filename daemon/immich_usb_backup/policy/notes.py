"""What a desktop shows about a run or a notice: pure, from the daemon's signals to notes.

The values come over D-Bus; they are read with defaults, and every line is made harmless once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from immich_usb_backup import messages
from immich_usb_backup.model import NoticeKind, Outcome, Stage
from immich_usb_backup.policy.note_words import Action
from immich_usb_backup.policy.text import harmless, harmless_lines

HELD = "deletions-held"
GONE = "disk-gone"
"""Codes of findings that decide which buttons there are."""

_LINES_SHOWN = 12
_LONGEST_LINE = 300
_DISK_ICON = "drive-removable-media"
"""One of the names that every icon theme has."""

Values = Mapping[str, Any]


class Urgency(Enum):
    """As org.freedesktop.Notifications has it."""

    LOW = 0
    NORMAL = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A notification in plain text. ``percent`` is None where there is no bar. It stays until it is withdrawn;
    ``resident``: also when somebody clicks it, because it goes on changing."""

    summary: str
    body: str
    urgency: Urgency
    category: str
    icon: str
    percent: int | None = None
    actions: tuple[Action, ...] = ()
    resident: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The run that the daemon works on. ``line``, ``stage`` and ``percent`` are empty until it says how far it is."""

    run_id: str
    disk: str
    uuid: str
    headline: str
    line: str = ""
    stage: str = ""
    percent: int | None = None


def text(values: Values, key: str) -> str:
    """One line of text, empty where there is none."""
    value = values.get(key, "")
    return _cut(harmless(value)) if isinstance(value, str) else ""


def truth(values: Values, key: str, *, default: bool) -> bool:
    """Yes or no."""
    value = values.get(key, default)
    return value if isinstance(value, bool) else default


def texts(values: Values, key: str) -> tuple[str, ...]:
    """A list of text, empty where there is none."""
    value = values.get(key)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def run_of(values: Values) -> Run:
    """A run from ``RunStarted`` or ``GetState``, with its progress if that is in it."""
    disk = text(values, "disk")
    run = Run(
        run_id=text(values, "run"),
        disk=disk,
        uuid=text(values, "uuid"),
        headline=text(values, "headline") or messages.started_line(disk),
    )
    return moved_on(run, values)


def moved_on(run: Run, values: Values) -> Run:
    """The run with the progress that is in these values."""
    return replace(run, line=text(values, "line"), stage=text(values, "stage"), percent=percent(values))


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
        icon=_DISK_ICON,
        percent=run.percent,
        actions=_steering(run.stage),
        resident=True,
    )


def _steering(stage: str) -> tuple[Action, ...]:
    """Once everything is on the disk it can be had back early, without anything being cut short."""
    if stage == Stage.UNMOUNT:
        return ()
    return (Action.EJECT,) if stage == Stage.PROVE else (Action.CANCEL,)


_OUTCOME_LOOKS = {
    Outcome.OK.value: (Urgency.NORMAL, "transfer.complete", _DISK_ICON),
    Outcome.FAILED.value: (Urgency.CRITICAL, "transfer.error", "dialog-error"),
}
_NOT_GOOD = (Urgency.CRITICAL, "transfer.error", "dialog-warning")


def finished(values: Values) -> Note:
    """The outcome. Anything but ``ok`` is something that a person has to see."""
    outcome = text(values, "outcome")
    urgency, category, icon = _OUTCOME_LOOKS.get(outcome, _NOT_GOOD)
    actions = _after(values)
    return Note(
        summary=text(values, "headline") or "A backup has ended",
        body=_body(values.get("todo"), values.get("body")),
        urgency=urgency,
        category=category,
        icon=icon,
        actions=actions,
        resident=bool(actions),
    )


def _after(values: Values) -> tuple[Action, ...]:
    codes = texts(values, "findings")
    still_mounted = not truth(values, "safe_to_unplug", default=True) and GONE not in codes
    wanted = ((Action.APPROVE, HELD in codes), (Action.EJECT, still_mounted))
    return tuple(action for action, offered in wanted if offered)


def ejected(values: Values) -> Values:
    """The same outcome, now that the disk is unmounted."""
    outcome = text(values, "outcome")
    if outcome not in set(Outcome):
        return {**values, "safe_to_unplug": True}
    headline = messages.outcome_headline(text(values, "disk"), Outcome(outcome), messages.SAFE_TO_UNPLUG)
    return {**values, "safe_to_unplug": True, "headline": headline}


_NOTICE_LOOKS = {
    NoticeKind.REMINDER.value: (Urgency.NORMAL, "device", _DISK_ICON),
    NoticeKind.STRANGER.value: (Urgency.CRITICAL, "device.error", "dialog-warning"),
    NoticeKind.WAITING.value: (Urgency.NORMAL, "device", "battery"),
}


def notice(values: Values) -> Note:
    """Something to know outside of a run. Nothing to press: what it says may be about a disk that nobody trusts."""
    urgency, category, icon = _NOTICE_LOOKS.get(text(values, "kind"), (Urgency.NORMAL, "device", "dialog-information"))
    return Note(
        summary=text(values, "headline") or "A message about your backups",
        body=_body(values.get("body"), values.get("todo")),
        urgency=urgency,
        category=category,
        icon=icon,
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


def with_answer(note: Note, answer: str, *, without: frozenset[Action]) -> Note:
    """The note with what came of a button in its first line, and without the buttons that make no sense any more."""
    actions = tuple(action for action in note.actions if action not in without)
    body = _body(answer, note.body) if answer else note.body
    return replace(note, body=body, actions=actions)


def _body(*parts: object) -> str:
    """What to do comes first: desktops cut off the end."""
    lines = [line for part in parts if isinstance(part, str) and part for line in harmless_lines(part)]
    shown = [_cut(line) for line in dict.fromkeys(lines)]
    more = ["…"] if len(shown) > _LINES_SHOWN else []
    return "\n".join([*shown[:_LINES_SHOWN], *more])


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"
