"""Who is told, when it is tried again, when it is given up; and the notifier's loop on fakes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from tests.support.telling import NOON, Recorder, SetClock, make_mail, make_report

from immich_usb_backup.adapters.mail import SmtpMailer
from immich_usb_backup.config import Mail
from immich_usb_backup.errors import BackupError, DeadlineMissed, DeliveryFailed
from immich_usb_backup.events import Event
from immich_usb_backup.model import Finding, Notice, NoticeKind, Outcome, RunReport, Severity
from immich_usb_backup.notifier import NotifierPorts, deliver_all
from immich_usb_backup.policy import delivery
from immich_usb_backup.policy.delivery import Attempts, DeliveryState, Waiting
from immich_usb_backup.policy.news import Begun, Ended, News, ended, news_id

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOTICE = Notice(notice_id="n1", kind=NoticeKind.REMINDER, server="nas", time=NOON, headline="'Blue' is 41 days old")


def _run(run_id: str, outcome: Outcome = Outcome.OK) -> Ended:
    return Ended(report=make_report(run_id, outcome=outcome))


async def test_only_outcomes_that_are_wanted_have_channels() -> None:
    mailer = SmtpMailer(make_mail(to=["a@x.org", "b@x.org", "a@x.org"], on=["failed"]), clock=SetClock())
    assert await mailer.channels(_run("r", Outcome.FAILED)) == ("mail:a@x.org", "mail:b@x.org")
    assert await mailer.channels(_run("r", Outcome.OK)) == ()
    assert await mailer.channels(NOTICE) == ("mail:a@x.org", "mail:b@x.org"), "notices are always wanted"
    assert await mailer.channels(Begun(report=make_report(outcome=Outcome.FAILED))) == ()


def _fail(times: int, *, every: timedelta = timedelta(0), permanent: bool = False) -> Attempts:
    now, attempts = NOON, None
    for _ in range(times):
        begun = delivery.begun(attempts, run_id="r", channel="mail:a@x", now=now)
        attempts = delivery.failed(begun, now=now, permanent=permanent)
        now += every
    assert attempts is not None
    return attempts


def test_the_pauses_grow_to_four_hours() -> None:
    waits = [_fail(times).next_try - NOON for times in range(1, 8)]
    assert waits == [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, 4 * HOUR, 4 * HOUR]


def test_it_is_given_up_after_fourteen_days_or_when_it_never_will() -> None:
    assert _fail(14, every=DAY).state is DeliveryState.WAITING
    assert _fail(15, every=DAY).state is DeliveryState.GIVEN_UP
    assert _fail(1, permanent=True).state is DeliveryState.GIVEN_UP


def test_an_attempt_that_killed_the_process_counts() -> None:
    begun = delivery.begun(None, run_id="r", channel="c", now=NOON)
    assert (begun.tries, begun.next_try, begun.settled) == (1, NOON + MINUTE, False)


def test_due_times() -> None:
    attempts = _fail(6)
    long_ago, later = NOON - DAY, NOON + HOUR
    assert delivery.due_at(None, now=later, started=later) == later
    assert delivery.due_at(attempts, now=later, started=long_ago) == NOON + 4 * HOUR
    assert delivery.due_at(attempts, now=later, started=later) == later + MINUTE, "a restart brings it forward"
    assert delivery.due_at(attempts, now=later, started=long_ago, said_yes=later) == later, "the server is back"
    assert delivery.due_at(attempts, now=long_ago, started=NOON - 2 * DAY) == long_ago, "the clock was set back"


class FakeOutbox:
    """Entries in memory."""

    def __init__(self, *entries: Waiting) -> None:
        self.entries = {entry.name: entry for entry in entries}
        self.stuck: set[str] = set()
        self.aside: list[str] = []

    async def pending(self) -> tuple[Waiting, ...]:
        return tuple(self.entries.values())

    async def discard(self, name: str) -> None:
        if name in self.stuck:
            raise DeliveryFailed("Cannot be removed.")
        del self.entries[name]

    async def set_aside(self, name: str) -> str:
        if name in self.stuck:
            raise DeliveryFailed("Cannot be moved.")
        self.aside.append(name)
        del self.entries[name]
        return f".unreadable-{name}"


class FakeLedger:
    """A book in memory that can refuse."""

    def __init__(self) -> None:
        self.book: dict[tuple[str, str], Attempts] = {}
        self.refuses = False
        self.states: list[DeliveryState] = []

    async def attempts(self, run_id: str, channel: str) -> Attempts | None:
        return self.book.get((run_id, channel))

    async def record(self, *changed: Attempts) -> None:
        self.book |= {(one.run_id, one.channel): one for one in changed}
        self.states += [one.state for one in changed]
        if self.refuses:
            raise DeliveryFailed("The book cannot be written.")


class FakeMailer:
    """Implements ``notifier.Courier``; takes what it is told to take."""

    in_order = False

    def __init__(self, ledger: FakeLedger, mail: Mail) -> None:
        self._mail = SmtpMailer(mail, clock=SetClock())
        self.sent: list[tuple[str, str]] = []
        self.calls = 0
        self.refused: dict[str, DeliveryFailed] = {}
        self.down: DeliveryFailed | DeadlineMissed | None = None
        self._ledger = ledger

    async def channels(self, news: News) -> tuple[str, ...]:
        return await self._mail.channels(news)

    async def deliver(self, news: News, channels: Sequence[str]) -> Mapping[str, BackupError]:
        addresses = [channel.removeprefix("mail:") for channel in channels]
        self.calls += 1
        assert self._ledger.states[-1] is DeliveryState.WAITING, "the attempt is written down first"
        if self.down is not None:
            raise self.down
        self.sent += [(news_id(news), one) for one in addresses if one not in self.refused]
        return {f"mail:{one}": self.refused[one] for one in addresses if one in self.refused}


class FakeMonitor:
    """Implements ``notifier.Courier`` for a machine; wants nothing until it is switched on."""

    in_order = True

    def __init__(self) -> None:
        self.on = False
        self.heard: list[str] = []
        self.tries = 0
        self.down: DeliveryFailed | None = None

    async def channels(self, news: News) -> tuple[str, ...]:
        return (delivery.PING,) if self.on and not isinstance(news, Notice) else ()

    async def deliver(self, news: News, channels: Sequence[str]) -> Mapping[str, BackupError]:
        self.tries += 1
        if self.down is not None:
            raise self.down
        self.heard.append(news_id(news))
        return {}


class World:
    """The notifier on fakes; each ``turn`` is a process of its own."""

    def __init__(self, *entries: Waiting, to: Sequence[str] = ("a@x.org",), on: Sequence[str] = tuple(Outcome)) -> None:
        self.outbox = FakeOutbox(*entries)
        self.ledger = FakeLedger()
        self.mailer = FakeMailer(self.ledger, make_mail(to=list(to), on=list(on)))
        self.monitor = FakeMonitor()
        self.log = Recorder()
        self.clock = SetClock()

    @property
    def ports(self) -> NotifierPorts:
        return NotifierPorts(
            outbox=self.outbox,
            ledger=self.ledger,
            couriers=(self.monitor, self.mailer),
            log=self.log,
            clock=self.clock,
        )

    async def turn(self, seconds: float = 0.05) -> bool:
        """Run for a moment; whether it ended by itself, with nothing pending."""
        stop = asyncio.Event()
        task = asyncio.create_task(deliver_all(self.ports, stop=stop, poll_seconds=0.01))
        done, _ = await asyncio.wait({task}, timeout=seconds)
        stop.set()
        await asyncio.wait_for(task, 1)
        return bool(done)


def _entry(run_id: str = "r1", outcome: Outcome = Outcome.OK) -> Waiting:
    return Waiting(name=f"{run_id}.json", news=_run(run_id, outcome))


async def test_everybody_is_told_once_and_the_entry_goes() -> None:
    world = World(_entry("r1"), _entry("r2"), to=("a@x.org", "b@x.org"))
    assert await world.turn()
    assert world.mailer.sent == [("r1", "a@x.org"), ("r1", "b@x.org"), ("r2", "a@x.org"), ("r2", "b@x.org")]
    assert world.outbox.entries == {}
    assert world.log.events() == [Event.DELIVERED] * 4
    assert world.log.lines()[0] == "Told a@x.org by mail about the run on 'Blue'"


async def test_an_entry_that_the_daemon_leaves_again_is_not_told_again() -> None:
    world = World(_entry())
    assert await world.turn()
    world.outbox.entries["r1.json"] = _entry()
    assert await world.turn()
    assert world.mailer.calls == 1
    assert world.outbox.entries == {}


async def test_what_nobody_wants_to_hear_is_discarded() -> None:
    world = World(_entry(), on=["failed"])
    assert await world.turn()
    assert (world.mailer.calls, world.outbox.entries) == (0, {})


async def test_only_the_one_who_was_refused_is_tried_again() -> None:
    world = World(_entry(), to=("a@x.org", "b@x.org"))
    world.mailer.refused = {"b@x.org": DeliveryFailed("Come back later.")}
    assert not await world.turn()
    assert world.mailer.calls == 1, "not before its time"
    world.mailer.refused = {}
    world.clock.move_on(seconds=59)
    assert not await world.turn()
    world.clock.move_on(seconds=61)
    assert await world.turn()
    assert world.mailer.sent == [("r1", "a@x.org"), ("r1", "b@x.org")]


async def test_a_permanent_refusal_ends_it_for_that_one_only() -> None:
    world = World(_entry(), to=("a@x.org", "b@x.org"))
    world.mailer.refused = {"a@x.org": DeliveryFailed("No such user.", permanent=True, hint="Correct mail.to.")}
    assert await world.turn()
    assert world.mailer.sent == [("r1", "b@x.org")]
    assert set(world.log.events()) == {Event.DELIVERY_GIVEN_UP, Event.DELIVERED}
    assert (
        "Gave up telling a@x.org by mail about the run on 'Blue': No such user. Correct mail.to." in world.log.lines()
    )


@pytest.mark.parametrize("error", [DeliveryFailed("Down."), DeadlineMissed("Slow.")])
async def test_a_server_that_is_down_is_tried_again_with_growing_pauses(error: DeliveryFailed | DeadlineMissed) -> None:
    world = World(_entry())
    world.mailer.down = error
    for _ in range(6):
        await world.turn()
        world.clock.move_on(hours=5)
    assert world.mailer.calls == 6
    assert [fields["tries"] for _, fields in world.log.said] == [1, 2, 3, 4, 5, 6]
    assert world.log.said[-1][1]["seconds"] == 4 * 3600
    world.mailer.down = None
    assert await world.turn()
    assert world.mailer.sent == [("r1", "a@x.org")]


async def test_a_new_entry_that_is_taken_brings_the_old_ones_forward() -> None:
    world = World(_entry("r1"))
    world.mailer.down = DeliveryFailed("Down.")
    assert not await world.turn()
    world.clock.move_on(seconds=10)
    world.mailer.down = None
    world.outbox.entries["r2.json"] = _entry("r2")
    assert await world.turn()
    assert sorted(world.mailer.sent) == [("r1", "a@x.org"), ("r2", "a@x.org")]


async def test_a_new_entry_is_seen_while_another_waits() -> None:
    world = World(_entry("r1"), to=("a@x.org",))
    world.mailer.refused = {"a@x.org": DeliveryFailed("Later.")}
    stop = asyncio.Event()
    task = asyncio.create_task(deliver_all(world.ports, stop=stop, poll_seconds=0.01))
    await asyncio.sleep(0.03)
    world.outbox.entries["r2.json"] = _entry("r2")
    await asyncio.sleep(0.05)
    assert world.mailer.calls == 2
    stop.set()
    await asyncio.wait_for(task, 1)


async def test_nothing_is_sent_that_could_not_be_written_down() -> None:
    world = World(_entry())
    world.ledger.refuses = True
    assert not await world.turn()
    assert world.mailer.calls == 0
    assert world.log.events() == [Event.DELIVERY_FAILED]
    world.ledger.refuses = False
    world.clock.move_on(minutes=2)
    assert await world.turn()
    assert world.mailer.calls == 1


async def test_unreadable_entries_are_set_aside_and_block_nobody() -> None:
    world = World(Waiting(name="bad.json", problem="it is not JSON.", foreign=True), _entry())
    assert await world.turn()
    assert world.outbox.aside == ["bad.json"]
    assert world.mailer.calls == 1
    assert world.log.events() == [Event.OUTBOX_UNREADABLE, Event.DELIVERED]
    assert ".unreadable-bad.json" in world.log.lines()[0]


async def test_a_file_that_cannot_be_touched_is_named_once_and_does_not_spin() -> None:
    stuck = Waiting(name="stuck.json", problem="Permission denied.")
    foreign = Waiting(name="foreign", problem="it is not JSON.", foreign=True)
    world = World(stuck, foreign, _entry())
    world.outbox.stuck = {"foreign", "r1.json"}
    assert not await world.turn()
    assert world.mailer.calls == 1, "a yes is a yes, even when the entry cannot be removed"
    assert sorted(fields["file"] for event, fields in world.log.said if event is Event.OUTBOX_UNREADABLE) == [
        "foreign",
        "r1.json",
        "stuck.json",
    ]


# Repeats --------------------------------------------------------------------------------------------------


class Disk:
    """Runs on one disk, each with those before it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._runs: list[RunReport] = []

    def ran(self, outcome: Outcome, *codes: str) -> str:
        now = self._world.clock.now()
        findings = tuple(Finding(code=code, severity=Severity.FAILED, message="No") for code in codes)
        run_id = f"r{len(self._runs) + 1}"
        report = make_report(run_id, outcome=outcome, findings=findings, started=now - MINUTE, ended=now)
        entry = Waiting(name=f"{run_id}.json", news=ended(report, reversed(self._runs)))
        self._runs.append(report)
        self._world.outbox.entries[entry.name] = entry
        return run_id


async def _told(world: World) -> list[str]:
    await world.turn(0.03)
    return [run_id for run_id, _ in world.mailer.sent]


async def test_the_same_failure_is_told_at_once_and_then_once_a_day() -> None:
    world = World()
    world.monitor.on = True
    disk = Disk(world)
    disk.ran(Outcome.FAILED, "disk-full")
    assert await _told(world) == ["r1"]
    for _ in range(5):
        world.clock.move_on(hours=4.7)
        disk.ran(Outcome.FAILED, "disk-full")
        assert await _told(world) == ["r1"]
        assert world.outbox.entries == {}, "nothing lies about until tomorrow"
    world.clock.move_on(hours=1)
    disk.ran(Outcome.FAILED, "disk-full")
    assert await _told(world) == ["r1", "r7"]
    assert world.log.events().count(Event.HELD_BACK) == 5
    assert world.monitor.heard == [f"r{number}" for number in range(1, 8)], "a monitor hears everything"


@pytest.mark.parametrize(
    ("outcome", "codes"), [(Outcome.OK, ()), (Outcome.FAILED, ("disk-failing",)), (Outcome.PARTIAL, ("disk-full",))]
)
async def test_a_change_is_told_at_once(outcome: Outcome, codes: tuple[str, ...]) -> None:
    world = World()
    disk = Disk(world)
    for _ in range(2):
        disk.ran(Outcome.FAILED, "disk-full")
        assert await _told(world) == ["r1"]
        world.clock.move_on(hours=1)
    disk.ran(outcome, *codes)
    assert await _told(world) == ["r1", "r3"]
    assert world.outbox.entries == {}


def test_a_clock_that_was_set_back_keeps_nobody_from_being_told() -> None:
    news = _run("r2", Outcome.FAILED)
    assert delivery.is_repeat(news, told=NOON - HOUR, waiting=(), now=NOON)
    assert not delivery.is_repeat(news, told=NOON + HOUR, waiting=(), now=NOON)


async def test_good_runs_are_never_bundled() -> None:
    world = World()
    disk = Disk(world)
    for _ in range(3):
        disk.ran(Outcome.OK)
        world.clock.move_on(minutes=1)
    assert await _told(world) == ["r1", "r2", "r3"]


async def test_failures_that_wait_for_the_mail_server_become_one_mail() -> None:
    world = World()
    disk = Disk(world)
    world.mailer.down = DeliveryFailed("Down.")
    for _ in range(3):
        disk.ran(Outcome.FAILED, "disk-full")
        await _told(world)
        world.clock.move_on(minutes=10)
    world.mailer.down = None
    world.clock.move_on(hours=5)
    assert await _told(world) == ["r3"]


async def test_another_disk_is_another_matter() -> None:
    world = World()
    disk = Disk(world)
    disk.ran(Outcome.FAILED, "disk-full")
    await _told(world)
    world.clock.move_on(minutes=1)
    disk.ran(Outcome.FAILED, "disk-full")
    other = make_report("other", outcome=Outcome.FAILED, ended=world.clock.now() + MINUTE)
    other = dataclasses.replace(other, disk=dataclasses.replace(other.disk, uuid="2"))
    world.outbox.entries["other.json"] = Waiting(name="other.json", news=Ended(report=other))
    assert await _told(world) == ["r1", "other"]


# Monitors -------------------------------------------------------------------------------------------------


def _begun(run_id: str, minutes_ago: float = 0) -> Waiting:
    report = make_report(run_id, started=NOON - minutes_ago * MINUTE)
    return Waiting(name=f"{run_id}.begun.json", news=Begun(report=report))


async def test_a_monitor_hears_that_a_run_begins_and_how_it_ends_and_people_only_the_end() -> None:
    world = World(_begun("r1"))
    world.monitor.on = True
    assert await world.turn()
    world.outbox.entries["r1.json"] = _entry("r1")
    assert await world.turn()
    assert world.monitor.heard == ["r1.begun", "r1"]
    assert world.mailer.sent == [("r1", "a@x.org")]
    assert world.log.lines()[0] == "Told the ping address about the beginning of the run on 'Blue'"


async def test_a_beginning_is_never_told_after_its_end_nor_long_after_it_was() -> None:
    world = World(_begun("r1"), _entry("r1"), _begun("r2", minutes_ago=11))
    world.monitor.on = True
    world.outbox.stuck = {"r1.begun.json"}
    assert not await world.turn()
    assert world.monitor.heard == ["r1"]
    world.outbox.stuck = set()
    world.clock.move_on(minutes=1)
    assert await world.turn()
    assert world.monitor.heard == ["r1"]


async def test_what_is_newer_waits_for_what_is_older() -> None:
    world = World(_entry("r1", Outcome.FAILED))
    world.monitor.on, world.monitor.down = True, DeliveryFailed("Down.")
    assert not await world.turn()
    world.clock.move_on(hours=9)
    world.outbox.entries["r2.json"] = _entry("r2")
    world.monitor.down = None
    assert await world.turn()
    assert world.monitor.heard == ["r1", "r2"]


async def test_a_monitor_that_is_down_is_asked_once_for_all_that_waits() -> None:
    world = World(*(_entry(f"r{number}") for number in range(4)))
    world.monitor.on, world.monitor.down = True, DeliveryFailed("Down.")
    assert not await world.turn()
    assert world.monitor.tries == 1
    assert len(world.mailer.sent) == 4, "it holds up nobody else"
    world.clock.move_on(minutes=2)
    assert not await world.turn()
    assert world.monitor.tries == 2
