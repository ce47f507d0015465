"""Whether the photos are safe, in one sentence; and one line for each disk that may have them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from immich_usb_backup.model import Outcome, Restorable
from immich_usb_backup.policy.ages import ago, ahead, span
from immich_usb_backup.policy.cells import Line, Note, Part, Tone, cells, cut, line, pad, wrapped
from immich_usb_backup.policy.text import counted, harmless, moment, printable, size
from immich_usb_backup.policy.views import DiskView, RunView

NARROW = 72
"""Below so many columns a disk takes several lines."""

_RUNS_SHOWN, _NAME_AT_MOST, _NAME_AT_LEAST = 20, 20, 6
_GAP = "  "
_STRIP = {
    "o": Part("|", Tone.GOOD),
    "p": Part("!", Tone.WARN),
    "f": Part("X", Tone.BAD),
    "i": Part("/", Tone.WARN),
}
_STRIP_WORDS = {"o": "| good", "p": "! not everything", "f": "X failed", "i": "/ interrupted"}
_LAST_WORDS: dict[str, str] = {
    Outcome.PARTIAL: "did not get everything",
    Outcome.FAILED: "failed",
    Outcome.INTERRUPTED: "was interrupted",
}
_RESTORES: dict[str, tuple[str, Tone]] = {
    Restorable.YES: ("yes", Tone.GOOD),
    Restorable.EXCEPT: ("not all", Tone.WARN),
    Restorable.NO: ("no", Tone.BAD),
}


@dataclass(frozen=True, slots=True)
class Safety:
    """Whether the photos are safe, the sentence that says so, what it rests on, and what to do."""

    safe: bool
    sentence: str
    evidence: str = ""
    todo: Note | None = None


def safety(disks: Sequence[DiskView], now: datetime) -> Safety:
    """Photos are safe while a disk has a good backup that is not late and that would bring them back."""
    good = sorted((disk for disk in disks if disk.last_good), key=lambda disk: disk.last_good or now, reverse=True)
    best = next((disk for disk in good if not disk.late and disk.restorable != Restorable.NO), None)
    if best is not None:
        most = "safe, but not all of them" if best.restorable == Restorable.EXCEPT else "safe"
        sentence = f"Your photos are {most}: the last good backup is on {shown(best)}, {ago(best.last_good, now)}."
        return Safety(safe=True, sentence=sentence, evidence=harmless(best.verdict))
    return Safety(safe=False, sentence=_not_safe(good, disks, now), todo=_todo(good, disks))


def _not_safe(good: Sequence[DiskView], disks: Sequence[DiskView], now: datetime) -> str:
    if good and (newest := good[0].last_good) is not None:
        age = span((now - newest).total_seconds())
        if good[0].late:
            return f"Your photos are not safe: the last good backup is {age} old, on {shown(good[0])}."
        return f"Your photos are not safe: {shown(good[0])} would not bring them back."
    if any(disk.known for disk in disks):
        return "Your photos are not safe: no backup has ended well yet."
    return "Your photos are not safe: there has been no backup yet."


def _todo(good: Sequence[DiskView], disks: Sequence[DiskView]) -> Note:
    if any(disk.state == "running" for disk in disks):
        return Note("A backup goes on: leave the disk plugged in until it is safe to unplug.")
    if good and not good[0].late:
        return Note("What is wrong with it:", command=command("show", good[0]))
    here = next((disk for disk in disks if disk.known and disk.device and disk.eligible and disk.trusted), None)
    if here is not None:
        return Note("Back up now:", command=f"sudo {command('backup', here)}")
    known = any(disk.known for disk in disks)
    return Note("Plug a backup disk in." if known else "Plug in a disk that carries the marker.")


def command(name: str, disk: DiskView) -> str:
    """The command line that means this disk: by its name where that can be typed, else by its UUID."""
    typed = (
        disk.name if disk.name and printable(disk.name) == disk.name and not disk.name.startswith("-") else disk.uuid
    )
    return f"immich-usb-backup {name} {shlex.quote(printable(typed))}"


def shown(disk: DiskView | RunView) -> str:
    """The disk's name in quotes, harmless."""
    return f"'{printable(disk.name)}'"


# The strip of runs ----------------------------------------------------------------------------------------


def strip(history: str, room: int = _RUNS_SHOWN) -> Line:
    """A character for each of the newest runs, the newest at the right: as many as there is room for."""
    return tuple(_STRIP.get(letter, Part("?", Tone.DIM)) for letter in history[max(0, len(history) - room) :])


def legend(histories: Sequence[str], columns: int) -> Iterator[Line]:
    """What the characters mean, where not all are good."""
    letters = set("".join(histories))
    if letters - {"o"}:
        yield from wrapped(", ".join(words for key, words in _STRIP_WORDS.items() if key in letters), columns, Tone.DIM)


# A line for each disk -------------------------------------------------------------------------------------


def status_lines(disks: Sequence[DiskView], now: datetime, columns: int) -> Iterator[Line]:
    """All that is to be known while no backup goes on, in lines of less than ``columns`` cells."""
    judged = safety(disks, now)
    yield from wrapped(judged.sentence, columns, Tone.GOOD if judged.safe else Tone.BAD)
    yield from wrapped(f"  {judged.evidence}", columns) if judged.evidence else ()
    yield from judged.todo.lines(columns) if judged.todo else ()
    yield from disk_lines(disks, now, columns)


def disk_lines(disks: Sequence[DiskView], now: datetime, columns: int) -> Iterator[Line]:
    """The disks that had a run, or have one; then what is remarkable of all."""
    ours = [disk for disk in disks if disk.known or disk.state in {"running", "waiting"}]
    if ours:
        yield ()
        yield from _table(ours, now, columns) if columns >= NARROW else _blocks(ours, now, columns)
        yield from legend([disk.history for disk in ours], columns)
    notes = [note for disk in disks for note in _notes(disk, now)]
    yield from ((),) if notes else ()
    for note in notes:
        yield from note.lines(columns)


def _table(disks: Sequence[DiskView], now: datetime, columns: int) -> Iterator[Line]:
    heads = ("LAST GOOD", "RESTORES", "SIZE", "DUE")
    rows = [_row(disk, now) for disk in disks]
    widths = [max(cells(part.text) for part in column) for column in zip(*rows, map(Part, heads), strict=True)]
    fixed = sum(widths) + len(_GAP) * (len(widths) + 1)
    names = max(_NAME_AT_LEAST, *(cells(_name(disk)) for disk in disks))
    room = max(_NAME_AT_LEAST, min(names, _NAME_AT_MOST, columns - fixed - len("LAST RUNS")))
    runs = min(_RUNS_SHOWN, columns - fixed - room)
    title = _GAP.join((pad("DISK", room), *map(pad, heads, widths), cut("LAST RUNS", runs)))
    yield line(title.rstrip(), Tone.DIM)
    for disk, row in zip(disks, rows, strict=True):
        middle = [part for cell, width in zip(row, widths, strict=True) for part in (Part(_GAP), _padded(cell, width))]
        yield (Part(pad(_name(disk), room), Tone.STRONG), *middle, Part(_GAP), *strip(disk.history, runs))


def _padded(part: Part, room: int) -> Part:
    return Part(pad(part.text, room), part.tone)


def _name(disk: DiskView) -> str:
    return printable(disk.name) + {"running": " (now)", "waiting": " (waits)", "idle": " (here)"}.get(disk.state, "")


def _row(disk: DiskView, now: datetime) -> tuple[Part, Part, Part, Part]:
    restores, tone = _RESTORES.get(disk.restorable, ("-", Tone.DIM))
    age = Tone.GOOD if disk.last_good and not disk.late else Tone.BAD
    return (
        Part(ago(disk.last_good, now), age),
        Part(restores, tone),
        Part(size(disk.size) if disk.size else "-"),
        _due(disk, now),
    )


def _due(disk: DiskView, now: datetime) -> Part:
    if disk.late:
        return Part("overdue", Tone.BAD)
    return Part(ahead(disk.due, now)) if disk.due else Part("-", Tone.DIM)


def _blocks(disks: Sequence[DiskView], now: datetime, columns: int) -> Iterator[Line]:
    for disk in disks:
        good, restores, room, due = _row(disk, now)
        yield (Part(cut(_name(disk), columns), Tone.STRONG),)
        yield from wrapped(f"  last good: {good.text}", columns, good.tone, indent=2)
        yield from wrapped(f"  restores: {restores.text}; due: {due.text}; {room.text}", columns, indent=2)
        if disk.history:
            yield (Part("  "), *strip(disk.history, columns - 2))


# What is remarkable ---------------------------------------------------------------------------------------


def _notes(disk: DiskView, now: datetime) -> Iterator[Note]:
    yield from _notes_here(disk) if disk.device else ()
    if disk.late and disk.last_good:
        yield _late(disk, now)
    if words := _LAST_WORDS.get(disk.last_outcome):
        tone = Tone.BAD if disk.last_outcome == Outcome.FAILED else Tone.WARN
        text = f"The last backup to {shown(disk)} {words}, {ago(disk.last_ended, now)}. Why, and what to do:"
        yield Note(text, tone, command("show", disk))
    if disk.held_deletions:
        held = f"{counted(disk.held_deletions, 'deletion')} held back on {shown(disk)}"
        yield Note(f"{held}. If you meant them:", Tone.WARN, f"sudo {command('approve', disk)}")
    if disk.next_run:
        planned = f"{moment(disk.next_run)} ({ahead(disk.next_run, now)})"
        yield Note(f"The next backup to {shown(disk)} is planned for {planned}.")


def _notes_here(disk: DiskView) -> Iterator[Note]:
    """Why a disk that is plugged in gets no backup now."""
    name = shown(disk)
    if disk.reasons and not disk.eligible:
        yield Note(f"{name} is plugged in and gets no backup: {harmless('; '.join(disk.reasons))}.", Tone.WARN)
    elif not disk.trusted:
        yield Note(f"{name} is plugged in and not enrolled on this server: it gets no backup.", Tone.WARN)
    elif disk.state == "waiting":
        yield Note(f"{name} waits for its turn.")
    elif disk.state == "idle" and not disk.known:
        yield Note(
            f"{name} is plugged in and has had no backup: it carries no marker, or could not be read.", Tone.WARN
        )


def _late(disk: DiskView, now: datetime) -> Note:
    assert disk.last_good is not None
    age = span((now - disk.last_good).total_seconds())
    seen = f", last seen {moment(disk.last_ended)}" if disk.last_ended and not disk.device else ""
    text = f"{shown(disk)} is overdue: its last good backup is {age} old{seen}."
    if disk.device:
        return Note(f"{text} Back up now:", Tone.WARN, f"sudo {command('backup', disk)}")
    return Note(f"{text} Plug it in.", Tone.WARN)
