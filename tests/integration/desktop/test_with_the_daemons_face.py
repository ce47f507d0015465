"""The agent and the daemon's real face on one bus: what the one says, the other understands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.dbus_service import DaemonOnBus
from immich_usb_backup.config import Desktop
from immich_usb_backup.model import Finding, Notice, NoticeKind, Outcome, Progress, RunReport, Severity, Stage
from tests.integration.buses import RecordingDesktop, until
from tests.integration.desktop.agents import Remembered, agent_runs
from tests.support.asked import BLUE, Service, StandInGuard
from tests.support.telling import NOON, Recorder, make_report

HELD = Finding(
    code="deletions-held", severity=Severity.PARTIAL, message="Nothing was removed", hint="Approve", items=("a.jpg",)
)


@dataclass
class Daemon:
    """What is in front of the bus is real, what is behind it is not."""

    face: DaemonOnBus
    service: Service
    guard: StandInGuard


@pytest.fixture
async def real() -> AsyncIterator[Daemon]:
    connection = await Bus.system()
    service, guard = Service(), StandInGuard()
    service.over, service.facts = (), (BLUE,)
    face = DaemonOnBus(connection, Desktop, lambda: 0.0, guard=guard, now=lambda: NOON)
    await face.start(service)
    yield Daemon(face, service, guard)
    await connection.close()


def _held(run_id: str) -> RunReport:
    return make_report(run_id, outcome=Outcome.PARTIAL, findings=(HELD,))


async def test_a_run_from_beginning_to_end(log: Recorder, real: Daemon, screen: RecordingDesktop) -> None:
    report = _held("r1")
    async with agent_runs(log):
        real.face.started("r1", report.disk)
        progress = Progress(run_id="r1", disk_name="Blue", stage=Stage.LIBRARY, done=5, total=10, percent=50, rate=1.0)
        real.face.progress(replace(progress, seconds_left=5.0))
        await until(lambda: bool(screen.visible) and screen.only.hints.get("value") == 50)
        assert screen.only.body.endswith("about 5 s left")
        screen.press("Cancel")
        await until(lambda: screen.only.body.startswith("The backup to 'Blue' is being stopped"))
        real.face.finished(report)
        await until(lambda: screen.only.buttons == ["Approve deletions"])
        real.guard.allows = False
        screen.press("Approve deletions")
        await until(lambda: screen.only.body.startswith("Not done. No."))
        real.guard.allows = True
        screen.press("Approve deletions")
        await until(lambda: screen.only.body.startswith("70,000 deletions approved"))
        assert real.service.asked == [("cancel", "1234-ABCD"), ("approve", "1234-ABCD")]


async def test_what_was_missed_is_told_with_its_story(log: Recorder, real: Daemon, screen: RecordingDesktop) -> None:
    real.service.over = (_held("r2"), make_report("r1", outcome=Outcome.FAILED))
    real.face.notice(
        Notice(notice_id="n", kind=NoticeKind.REMINDER, server="nas", time=NOON, headline="Nobody listens yet")
    )
    seen = Remembered()
    async with agent_runs(log, seen=seen):
        await until(lambda: bool(screen.visible))
        headline = "'Blue' was backed up while you were away, but not everything: safe to unplug"
        assert screen.summaries() == [headline]
        assert screen.only.body.startswith("Approve\nNothing was removed.\n  - a.jpg")
        real.face.notice(Notice(notice_id="n", kind=NoticeKind.STRANGER, server="nas", time=NOON, headline="Who?"))
        await until(lambda: screen.summaries() == [headline, "Who?"])
        await until(lambda: bool(seen.shown))
    assert seen.shown == {"1234-ABCD": "r2"}
