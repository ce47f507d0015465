"""What the tests of notifications share: a report, a log that remembers, a clock that is set."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from immich_usb_backup.config import Config, Mail
from immich_usb_backup.events import Event
from immich_usb_backup.model import (
    Disk,
    DiskVerdict,
    Finding,
    Outcome,
    Restorable,
    RunReport,
    Severity,
    Stage,
    StageReport,
)
from immich_usb_backup.policy.text import fill

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "Blue\r\nBcc: x@y",
    "x" * 300,
    "not\udcfftext",
    "\u202egpj.evil",
    "a&b\"c'd",
    "é" * 200,
    "=?utf-8?q?=0D=0ABcc:_x=40y?=",
    "tab\tnul\0bell\a",
    "\u2028line\u0085sep",
    " ",
    "%s{disk}",
)


def make_report(
    run_id: str = "20261121T120000Z-1", *, outcome: Outcome = Outcome.OK, name: str = "Blue", **changes: Any
) -> RunReport:
    """A report of a run that ended at noon."""
    disk = Disk(
        name=name,
        uuid="1234-ABCD",
        label=name,
        model="Stick",
        serial="S1",
        size=64_000_000_000,
        device_node="/dev/sdb1",
    )
    report = RunReport(
        run_id=run_id,
        server="nas",
        disk=disk,
        started=NOON - timedelta(minutes=3),
        ended=NOON,
        outcome=outcome,
        safe_to_unplug=True,
        stages=(StageReport(stage=Stage.LIBRARY, seconds=100.0, files=12, bytes=34_000_000),),
        dump="immich-db-backup-20261121T020000-v2.sql.gz",
        dump_time=NOON - timedelta(hours=10),
        free_bytes=5_000_000_000,
    )
    return dataclasses.replace(report, **changes)


def hostile_report(name: str) -> RunReport:
    """The name is everywhere where something from the disk can be."""
    finding = Finding(code="x", severity=Severity.PARTIAL, message=name, hint=name, items=(name, name), count=30)
    verdict = DiskVerdict(restorable=Restorable.EXCEPT, dump=name, immich=name, assets=1, reasons=(name,))
    report = make_report(name=name, outcome=Outcome.PARTIAL, findings=(finding,), server=name, verdict=verdict)
    disk = dataclasses.replace(report.disk, uuid=name, label=name, model=name, serial=name)
    return dataclasses.replace(report, disk=disk)


def make_mail(**changes: Any) -> Mail:
    """A mail section as the configuration file would have it."""
    values: dict[str, Any] = {"host": "localhost", "port": 2525, "security": "none", "from": "nas@example.org"}
    values["to"] = ["me@example.org"]
    mail = Config.model_validate({"mail": values | changes}).mail
    assert mail is not None
    return mail


@dataclass
class Recorder:
    """Implements ``ports.Log``."""

    said: list[tuple[Event, dict[str, Any]]] = field(default_factory=list)

    def say(self, event: Event, **fields: Any) -> None:
        """Remember."""
        self.said.append((event, fields))

    def events(self) -> list[Event]:
        """What was said, without the words."""
        return [event for event, _ in self.said]

    def lines(self) -> list[str]:
        """As the journal shows it."""
        return [fill(event.kind.template, fields) for event, fields in self.said]


class SetClock:
    """Implements ``ports.Clock``; stands still until it is moved on."""

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The time it was set to."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """The same in seconds."""
        return self.now().timestamp()

    def move_on(self, **parts: float) -> None:
        """By a ``timedelta(**parts)``."""
        with self._lock:
            self._now += timedelta(**parts)
