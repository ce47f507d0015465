"""What a history remembers of disks and runs: one suite for the fake and for SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.model import DiskVerdict, Outcome, PlugIn, Restorable, RunReport
from immich_usb_backup.ports import History
from tests.support.fakes import FakeHistory, Script
from tests.support.telling import NOON, make_report

VERDICT = DiskVerdict(restorable=Restorable.YES, assets=3)


@pytest.fixture(params=["fake", "sqlite"])
async def history(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[History]:
    if request.param == "fake":
        yield FakeHistory(Script())
        return
    real = SqliteHistory(tmp_path / "state.db")
    await real.prepare()
    yield real


def run_of(disk: str, day: int, outcome: Outcome = Outcome.OK, *, verdict: DiskVerdict | None = None) -> RunReport:
    """A run on one of several disks; its label is new each time."""
    report = make_report(f"{disk}-{day}", name=disk, outcome=outcome, verdict=verdict)
    when = NOON + timedelta(days=day)
    known = replace(report.disk, uuid=f"{disk}-UUID", label=f"{disk}{day}")
    return replace(report, disk=known, started=when, ended=when + timedelta(hours=1))


async def remember(history: History, *reports: RunReport) -> None:
    for number, report in enumerate(reports):
        await history.begin(report, PlugIn(boot_id="boot", disk_sequence=number, device_number=1))
        await history.finish(report)


async def ids(history: History, limit: int = 9, *, uuid: str = "", failed: bool = False) -> list[str]:
    return [report.run_id for report in await history.runs(limit, uuid=uuid, failed=failed)]


async def test_runs_are_chosen_by_disk_and_by_how_they_ended(history: History) -> None:
    await remember(
        history,
        run_of("Blue", 1),
        run_of("Red", 2, Outcome.FAILED),
        run_of("Blue", 3, Outcome.PARTIAL),
        run_of("Blue", 4),
    )
    assert await ids(history) == ["Blue-4", "Blue-3", "Red-2", "Blue-1"]
    assert await ids(history, 2) == ["Blue-4", "Blue-3"]
    assert await ids(history, uuid="Blue-UUID") == ["Blue-4", "Blue-3", "Blue-1"]
    assert await ids(history, failed=True) == ["Blue-3", "Red-2"]
    assert await ids(history, uuid="Red-UUID", failed=True) == ["Red-2"]
    assert await ids(history, uuid="Green-UUID") == []


async def test_one_run_is_found_when_it_is_over(history: History) -> None:
    over, going = run_of("Blue", 1), run_of("Blue", 2)
    await remember(history, over)
    await history.begin(going, PlugIn(boot_id="boot", disk_sequence=9, device_number=1))
    assert await history.report("Blue-1") == over
    assert await history.report("Blue-2") is None
    assert await history.report("none") is None


async def test_a_disk_is_known_by_its_newest_run_its_last_good_one_and_its_newest_verdict(history: History) -> None:
    assert await history.disks() == ()
    good, bad = run_of("Blue", 2), run_of("Blue", 4, Outcome.FAILED)
    worse = replace(VERDICT, restorable=Restorable.NO)
    await remember(
        history,
        run_of("Blue", 1, verdict=worse),
        good,
        run_of("Red", 3, Outcome.FAILED),
        replace(bad, verdict=None),
        run_of("Blue", 0),
    )
    if isinstance(history, SqliteHistory):  # the fake knows no time: there what came last is the newest
        blue, red = await history.disks()
        assert (blue.disk.label, blue.last.run_id, blue.good, blue.verdict) == ("Blue4", "Blue-4", good.ended, worse)
        assert blue.first == NOON
        assert (red.disk.name, red.good, red.verdict) == ("Red", None, None)
    assert {one.disk.uuid for one in await history.disks()} == {"Blue-UUID", "Red-UUID"}


async def test_the_last_outcomes_of_each_disk_are_told_the_oldest_first(history: History) -> None:
    await remember(
        history,
        run_of("Blue", 1, Outcome.FAILED),
        run_of("Red", 2, Outcome.INTERRUPTED),
        run_of("Blue", 3),
        run_of("Blue", 4, Outcome.PARTIAL),
    )
    assert await history.outcomes(2) == {
        "Blue-UUID": (Outcome.OK, Outcome.PARTIAL),
        "Red-UUID": (Outcome.INTERRUPTED,),
    }


async def test_a_forgotten_disk_is_known_no_more_and_others_still_are(history: History) -> None:
    going = run_of("Blue", 9)
    await remember(history, run_of("Blue", 1), run_of("Red", 2))
    await history.begin(going, PlugIn(boot_id="boot", disk_sequence=9, device_number=1))
    await history.forget("Blue-UUID")
    assert await ids(history) == ["Red-2"]
    assert [one.disk.name for one in await history.disks()] == ["Red"]
    assert [one.run_id for one in await history.cut_off()] == ["Blue-9"], "a run that goes on is not forgotten"
    assert await history.handled(PlugIn(boot_id="boot", disk_sequence=0, device_number=1)), "nothing begins again"
    await history.forget("Green-UUID")


async def test_mode_and_trigger_are_kept(history: History) -> None:
    report = make_report()
    await remember(history, report)
    assert await history.report(report.run_id) == report
