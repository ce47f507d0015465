"""Nobody forgets, and nobody is nagged: reminders over histories of runs, with a clock that is set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fakes import World
from tests.support.telling import HOSTILE_NAMES, NOON, SetClock, make_report

from immich_usb_backup.adapters.reminders import NAME, ReminderFile
from immich_usb_backup.config import Config
from immich_usb_backup.errors import DeliveryFailed, StateDamaged
from immich_usb_backup.events import Event
from immich_usb_backup.model import KnownDisk, Notice, NoticeKind, Outcome, PlugIn, Reminded, Reminders, RunReport
from immich_usb_backup.policy import freshness
from immich_usb_backup.policy.freshness import Lateness
from immich_usb_backup.reminding import remind

DAY = timedelta(days=1)
START = NOON.replace(hour=8)
LONGEST_PAUSE = max(freshness.PAUSE_DAYS)


def run_of(day: float, name: str = "Blue", outcome: Outcome = Outcome.OK) -> RunReport:
    """A run that ended so many days after the start."""
    ended = START + timedelta(days=day)
    report = make_report(f"{name}-{day}", name=name, outcome=outcome, started=ended - timedelta(minutes=5), ended=ended)
    return replace(report, disk=replace(report.disk, uuid=f"UUID-{name}"))


def known_from(runs: Sequence[RunReport]) -> tuple[KnownDisk, ...]:
    """As the history has them, of runs in their order."""
    found = []
    for uuid in dict.fromkeys(run.disk.uuid for run in reversed(runs)):
        mine = [run for run in runs if run.disk.uuid == uuid]
        good = [run.ended for run in mine if run.outcome is Outcome.OK]
        found.append(
            KnownDisk(disk=mine[-1].disk, last=mine[-1], first=mine[0].started, good=good[-1] if good else None)
        )
    return tuple(found)


@dataclass(frozen=True)
class Said:
    """A reminder that went out."""

    time: datetime
    about: frozenset[str]
    notice: Notice


def reminders_over(runs: Sequence[RunReport], days: int, config: Config | None = None) -> list[Said]:
    """What goes out when somebody looks each day at noon."""
    config = config or Config()
    kept, said = Reminders(since=START), []
    for day in range(days):
        now = NOON + day * DAY
        past = [run for run in runs if run.ended <= now]
        rotation = freshness.rotated(run.disk.uuid for run in past)
        what = freshness.lateness(known_from(past), rotation=rotation, config=config, since=kept.since, now=now)
        kept = freshness.settled(kept, what, now)
        if freshness.remind_now(kept, what, now):
            notice = freshness.reminder(what, server="nas", since=kept.since, now=now, service_runs=True)
            said.append(Said(now, what.about, notice))
            kept = freshness.told(kept, what, now)
    return said


def days_of(said: Sequence[Said]) -> list[int]:
    return [(one.time - NOON).days for one in said]


# When it goes out -------------------------------------------------------------------------------------------


def test_a_disk_that_is_late_is_reminded_of_at_growing_intervals() -> None:
    assert days_of(reminders_over([run_of(0)], 160)) == [30, 31, 34, 41, 55, 85, 115, 145]


def test_a_good_run_ends_it_and_it_begins_anew_later() -> None:
    assert days_of(reminders_over([run_of(0), run_of(50)], 100)) == [30, 31, 34, 41, 80, 81, 84, 91]


@pytest.mark.parametrize("outcome", [Outcome.PARTIAL, Outcome.FAILED, Outcome.INTERRUPTED])
def test_a_run_that_is_not_good_ends_nothing(outcome: Outcome) -> None:
    assert days_of(reminders_over([run_of(0), run_of(20, outcome=outcome)], 40)) == [30, 31, 34]


def test_one_fresh_disk_is_enough_where_none_is_rotated() -> None:
    runs = [run_of(0, "Old"), *(run_of(day) for day in range(1, 100, 20))]
    assert reminders_over(runs, 100) == []


def test_a_disk_of_a_rotation_is_missed_though_another_is_fresh() -> None:
    runs = [run_of(day, "Blue" if day % 14 == 0 else "Green") for day in range(0, 36, 7)]
    runs += [run_of(day, "Green") for day in range(42, 100, 7)]
    said = reminders_over(runs, 90)
    assert days_of(said)[0] == 28 + 30
    assert {one.about for one in said} == {frozenset({"UUID-Blue"})}
    assert "'Green' is fresh" in "\n".join(said[0].notice.lines)


def test_a_server_without_any_backup_is_reminded_of() -> None:
    said = reminders_over([], 12)
    assert days_of(said) == [7, 8, 11]
    assert said[0].notice.headline == "There is no backup of 'nas'"
    assert reminders_over([run_of(6)], 30) == []


def test_zero_days_is_never() -> None:
    never = Config.model_validate({"freshness": {"due_days": 0}})
    assert reminders_over([run_of(0)], 400, never) == []
    assert reminders_over([], 400, never) == []
    only_blue = Config.model_validate({"disk": {"Blue": {"due_days": 0}}})
    assert reminders_over([run_of(0), run_of(0, "Green")], 31, only_blue)[0].about == {"UUID-Green"}


def test_a_disks_own_days_hold() -> None:
    config = Config.model_validate({"disk": {"Blue": {"due_days": 3}}})
    assert days_of(reminders_over([run_of(0)], 6, config)) == [3, 4]


def test_who_uses_one_disk_after_another_rotates_none() -> None:
    assert freshness.rotated("aabb") == frozenset()
    assert freshness.rotated("abab") == {"a", "b"}
    assert freshness.rotated("aba") == {"a"}


# Whatever happens -------------------------------------------------------------------------------------------

HISTORIES = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from(["Blue", "Green", "Red"]), st.sampled_from(list(Outcome))),
    max_size=12,
).map(lambda rows: [run_of(day, name, outcome) for day, name, outcome in sorted(rows, key=lambda row: row[0])])


@settings(max_examples=40)
@given(HISTORIES)
def test_there_is_never_more_than_one_in_a_day(runs: list[RunReport]) -> None:
    times = [one.time for one in reminders_over(runs, 260)]
    assert all(later - earlier >= DAY for earlier, later in pairwise(times))


@settings(max_examples=40)
@given(HISTORIES)
def test_no_lateness_goes_on_without_a_reminder(runs: list[RunReport]) -> None:
    """Whenever no disk is fresh, the last reminder was not long ago, and the first came within a day."""
    said = reminders_over(runs, 260)
    late_since: datetime | None = None
    for day in range(260):
        now = NOON + day * DAY
        known = known_from([run for run in runs if run.ended <= now])
        fresh = any(one.good is not None and now < one.good + 30 * DAY for one in known)
        late = [one for one in known if (one.good or one.first) + 30 * DAY <= now]
        late_since = (late_since or now) if late and not fresh else None
        if late_since is not None and now - late_since >= DAY:
            assert any(now - LONGEST_PAUSE * DAY <= one.time <= now for one in said)


@settings(max_examples=40)
@given(HISTORIES, st.sampled_from(["Blue", "Green", "Red"]), st.integers(0, 200))
def test_a_good_run_silences_its_disk(runs: list[RunReport], name: str, day: int) -> None:
    runs = sorted([*runs, run_of(day, name)], key=lambda run: run.ended)
    for one in reminders_over(runs, 260):
        since = one.time - (START + day * DAY)
        assert not (timedelta() <= since < 30 * DAY and f"UUID-{name}" in one.about)


@settings(max_examples=40)
@given(HISTORIES)
def test_what_is_fresh_is_not_reminded_of(runs: list[RunReport]) -> None:
    for one in reminders_over(runs, 260):
        for known in known_from([run for run in runs if run.ended <= one.time]):
            fresh = known.good is not None and one.time - known.good < 30 * DAY
            assert not (fresh and known.disk.uuid in one.about)


def test_a_second_disk_that_is_late_on_the_same_day_waits_for_the_next() -> None:
    one = Lateness(late=known_from([run_of(-50)]))
    both = Lateness(late=known_from([run_of(-50), run_of(-49, "Green")]))
    kept = freshness.told(Reminders(since=START), one, NOON)
    assert not freshness.remind_now(kept, both, NOON + timedelta(hours=3))
    assert freshness.remind_now(kept, both, NOON + DAY)


def test_a_clock_that_was_wrong_silences_nobody() -> None:
    """Before the time is set a machine may think it is 2099."""
    future = NOON + 10_000 * DAY
    what = Lateness(late=known_from([run_of(-50)]))
    kept = Reminders(since=future, last=future, disks={"UUID-Blue": Reminded(times=1, last=future)})
    kept = freshness.settled(kept, what, NOON)
    assert kept.since == NOON
    assert not freshness.remind_now(kept, what, NOON)
    assert freshness.remind_now(kept, what, NOON + DAY)


def test_a_timer_that_comes_a_little_early_is_not_put_off_for_a_day() -> None:
    what = Lateness(late=known_from([run_of(-50)]))
    kept = freshness.told(Reminders(since=START), what, NOON)
    assert freshness.remind_now(kept, what, NOON + DAY - timedelta(hours=1))
    assert not freshness.remind_now(kept, what, NOON + timedelta(hours=12))


# Words ------------------------------------------------------------------------------------------------------


def noticed(*runs: RunReport, now: datetime = NOON + 41 * DAY, **options: Any) -> Notice:
    rotation = freshness.rotated(run.disk.uuid for run in runs)
    what = freshness.lateness(known_from(runs), rotation=rotation, config=Config(), since=START, now=now)
    return freshness.reminder(what, server="nas", since=START, now=now, **({"service_runs": True} | options))


def test_it_says_how_old_what_it_means_and_what_to_do() -> None:
    notice = noticed(run_of(0))
    assert notice.headline == "'Blue' is 41 days old (last seen 21 November 2026)"
    assert notice.lines == (
        "No disk has a fresh backup: if the server's disks fail today, the photos that came since then are lost.",
    )
    assert notice.todo == (
        "Plug in 'Blue', and wait for the message that says it is safe to unplug.",
        "A disk that you no longer use: sudo immich-usb-backup forget DISK",
    )
    assert (notice.kind, notice.disk_name, notice.disk_uuid) == (NoticeKind.REMINDER, "Blue", "UUID-Blue")


def test_a_disk_that_was_there_and_failed_is_not_said_to_be_away() -> None:
    notice = noticed(run_of(0), run_of(40, outcome=Outcome.FAILED), here=frozenset({"UUID-Blue"}))
    assert notice.headline == "'Blue' is 41 days old (last seen 31 December 2026)"
    assert notice.lines[0] == ("The last backup to 'Blue' failed: its age counts from the last one that was complete.")
    assert notice.todo[0] == "What is plugged in: sudo immich-usb-backup backup DISK"


def test_the_oldest_comes_first() -> None:
    notice = noticed(run_of(5, "Green"), run_of(0, "Blue"))
    assert notice.headline.startswith("'Blue' is 41 days old")
    assert notice.lines[0].startswith("'Green' is 36 days old")
    assert notice.disk_name == ""


def test_a_service_that_does_not_run_is_said() -> None:
    notice = noticed(run_of(0), service_runs=False)
    assert "The backup service does not run" in notice.lines[-1]
    assert "systemctl restart immich-usb-backup" in notice.todo[0]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_stay_in_their_line(name: str) -> None:
    notice = noticed(run_of(0, name), run_of(1, "x" + name))
    for line in (notice.headline, *notice.lines, *notice.todo):
        assert line.isprintable() or "\u00ad" in line
        assert "\n" not in line


# Done -------------------------------------------------------------------------------------------------------


async def filled(world: World, *runs: RunReport) -> None:
    for number, run in enumerate(runs):
        await world.history.begin(run, PlugIn(boot_id="b", disk_sequence=number, device_number=1))
        await world.history.finish(run)


async def look(world: World, clock: SetClock, config: Config | None = None, *, running: str = "") -> int:
    return await remind(
        config or Config(),
        history=world.history,
        book=world.reminder_book,
        outbox=world.outbox,
        watchers=world.ports.watchers,
        log=world.log,
        clock=clock,
        server="nas",
        running=running,
    )


async def test_a_reminder_goes_to_every_channel_once(world: World) -> None:
    await filled(world, run_of(-31))
    clock = SetClock()
    assert await look(world, clock) == 1
    assert await look(world, clock) == 0
    (notice,) = world.outbox.notices.values()
    assert notice.notice_id == "reminder-20261121"
    assert world.watchers.told == ["notice reminder"]
    assert [line for line in world.log.lines() if "'Blue' is 31 days old" in line]
    clock.move_on(days=1)
    assert await look(world, clock) == 1
    assert len(world.outbox.notices) == 2


async def test_what_could_not_be_handed_on_is_tried_the_next_time(world: World) -> None:
    await filled(world, run_of(-31))
    clock = SetClock()
    world.script.fail("outbox.put_notice", DeliveryFailed("the disk is full"))
    assert await look(world, clock) == 1
    assert Event.ANNOUNCE_FAILED in world.log.events()
    assert await look(world, clock) == 1
    assert len(world.outbox.notices) == 1


async def test_switched_off_it_is_silent(world: World) -> None:
    await filled(world, run_of(-31))
    assert await look(world, SetClock(), Config.model_validate({"freshness": {"remind": False}})) == 0
    assert not world.outbox.notices


async def test_a_disk_that_is_being_backed_up_to_is_not_missed(world: World) -> None:
    await filled(world, run_of(-31))
    clock = SetClock()
    assert await look(world, clock, running="UUID-Blue") == 0
    assert await look(world, clock, running="UUID-Green") == 1


async def test_the_first_backup_of_all_is_not_missed_while_it_is_made(world: World) -> None:
    clock = SetClock()
    await look(world, clock)
    clock.move_on(days=8)
    assert await look(world, clock, running="UUID-Blue") == 0
    assert await look(world, clock) == 1


async def test_a_forgotten_disk_is_not_missed(world: World) -> None:
    await filled(world, run_of(-31), run_of(-1, "Green"), run_of(-0.5, "Green"))
    await world.history.forget("UUID-Green")
    assert await look(world, SetClock()) == 1
    await world.history.forget("UUID-Blue")
    clock = SetClock(NOON + 3 * DAY)
    assert await look(world, clock) == 0


async def test_what_was_said_is_kept_on_the_disk(tmp_path: Path) -> None:
    book, other = ReminderFile(tmp_path), ReminderFile(tmp_path)
    assert await book.load(NOON) == Reminders(since=NOON)
    kept = Reminders(since=START, last=NOON, disks={"1234-ABCD": Reminded(times=3, last=NOON)})
    await book.save(kept)
    assert await other.load(NOON + DAY) == kept


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"since": 3}', '{"since": "2026-01-01T00:00:00", "last": null, "disks": {}}']
)
async def test_a_damaged_file_costs_nothing_but_one_more_reminder(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    assert await ReminderFile(tmp_path).load(NOON) == Reminders(since=NOON)


async def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StateDamaged, match="cannot be written"):
        await ReminderFile(tmp_path / "missing").save(Reminders(since=NOON))
