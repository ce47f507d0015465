"""What the history remembers of each disk, as Prometheus' text format has it. Pure.

A gauge that has no value for a disk (no good run yet, no verdict) is left out for it: a 0 would be a lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeAlias

from immich_usb_backup.config import Config
from immich_usb_backup.model import KnownDisk, Outcome, Restorable, RunReport
from immich_usb_backup.policy.freshness import due
from immich_usb_backup.policy.text import printable

PREFIX = "immich_usb_backup_"

_RESTORABLE = {Restorable.YES: 1.0, Restorable.EXCEPT: 0.5, Restorable.NO: 0.0}

_Value: TypeAlias = float | None
_Gauge: TypeAlias = tuple[str, str, Callable[[KnownDisk], _Value]]


def textfile(disks: Sequence[KnownDisk], config: Config, *, now: datetime) -> str:
    """The whole file."""
    written = [
        *_head("written_timestamp_seconds", "When this file was written."),
        _line("written_timestamp_seconds", {}, now.timestamp()),
    ]
    lines = [*written, *_info(disks)]
    for name, text, value in (*_GAUGES, _due_gauge(config)):
        lines += _gauge(name, text, [(known, {}, value(known)) for known in disks])
    lines += _gauge("last_run_outcome", _OUTCOME_TEXT, [row for known in disks for row in _states(known)])
    lines += _gauge("photos", _PHOTOS_TEXT, [row for known in disks for row in _photos(known)])
    return "\n".join(lines) + "\n"


_OUTCOME_TEXT = "1 for the outcome that the last backup had, 0 for the others."
_PHOTOS_TEXT = "Photos that the disk's database dump names, by what is known of them."


def _last(read: Callable[[RunReport], float]) -> Callable[[KnownDisk], _Value]:
    return lambda known: read(known.last)


_GAUGES: tuple[_Gauge, ...] = (
    (
        "last_success_timestamp_seconds",
        "When the last backup without a problem ended.",
        lambda known: known.good.timestamp() if known.good else None,
    ),
    ("last_run_timestamp_seconds", "When the last backup ended.", _last(lambda report: report.ended.timestamp())),
    (
        "last_run_duration_seconds",
        "How long the last backup took.",
        _last(lambda report: (report.ended - report.started).total_seconds()),
    ),
    (
        "last_run_copied_bytes",
        "Bytes that the last backup copied.",
        _last(lambda report: sum(stage.bytes for stage in report.stages)),
    ),
    (
        "last_run_copied_files",
        "Files that the last backup copied.",
        _last(lambda report: sum(stage.files for stage in report.stages)),
    ),
    (
        "last_run_safe_to_unplug",
        "1 if the disk was unmounted properly after the last backup.",
        _last(lambda report: report.safe_to_unplug),
    ),
    ("disk_size_bytes", "Size of the partition.", lambda known: known.disk.size),
    ("disk_free_bytes", "Room on the disk after the last backup.", lambda known: known.last.free_bytes),
    (
        "restorable",
        "1 if the disk brings everything back that its database dump names, 0.5 if all but some files, 0 if not.",
        lambda known: _RESTORABLE[known.verdict.restorable] if known.verdict else None,
    ),
)


def _due_gauge(config: Config) -> _Gauge:
    def value(known: KnownDisk) -> _Value:
        when = due(known, config)
        return when.timestamp() if when else None

    return "due_timestamp_seconds", "When the next backup without a problem is due.", value


_Row: TypeAlias = tuple[KnownDisk, dict[str, str], _Value]


def _states(known: KnownDisk) -> Iterator[_Row]:
    for outcome in Outcome:
        yield known, {"outcome": outcome.value}, float(known.last.outcome is outcome)


def _photos(known: KnownDisk) -> Iterator[_Row]:
    verdict = known.verdict
    if verdict is None:
        return
    counts = {
        "named": verdict.assets,
        "present": verdict.present,
        "proven": verdict.proven,
        "missing": verdict.missing,
        "changed": verdict.changed,
        "rotten_on_disk": verdict.rotten_on_disk,
        "rotten_on_server": verdict.rotten_on_server,
    }
    yield from ((known, {"state": state}, float(number)) for state, number in counts.items())


def _info(disks: Sequence[KnownDisk]) -> Iterator[str]:
    """The name apart: one that changes must not break the other series."""
    yield from _head("disk_info", "Always 1; the name of a disk.")
    for known in disks:
        names = {"uuid": known.disk.uuid, "disk": known.disk.name, "label": known.disk.label, "model": known.disk.model}
        yield _line("disk_info", names, 1)


def _gauge(name: str, text: str, rows: Sequence[_Row]) -> Iterator[str]:
    found = [(known, more, value) for known, more, value in rows if value is not None]
    if found:
        yield from _head(name, text)
    for known, more, value in found:
        assert value is not None
        yield _line(name, {"uuid": known.disk.uuid, "disk": known.disk.name, **more}, value)


def _head(name: str, text: str) -> tuple[str, str]:
    return f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} gauge"


def _line(name: str, labels: dict[str, str], value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    number = float(value)
    return f"{PREFIX}{name}{f'{{{shown}}}' if labels else ''} {int(number) if number.is_integer() else number!r}"


def _escaped(text: str) -> str:
    """A name from a disk, on one line and in UTF-8, with what the format wants to be escaped."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')
