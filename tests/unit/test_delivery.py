"""Who is told, when it is tried again, when it is given up; and the notifier's loop on fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest
from tests.support.telling import NOON, Recorder, SetClock, make_mail, make_report

from immich_usb_backup.errors import DeadlineMissed, DeliveryFailed
from immich_usb_backup.events import Event
from immich_usb_backup.model import Outcome, RunReport
from immich_usb_backup.notifier import NotifierPorts, deliver_all
from immich_usb_backup.policy import delivery
from immich_usb_backup.policy.delivery import Attempts, DeliveryState, Waiting

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def test_only_outcomes_that_are_wanted_have_channels() -> None:
    mail = make_mail(to=["a@x.org", "b@x.org", "a@x.org"], on=["failed"])
    assert delivery.channels(make_report(outcome=Outcome.FAILED), mail) == ("mail:a@x.org", "mail:b@x.org")
    assert delivery.channels(make_report(outcome=Outcome.OK), mail) == ()
    assert delivery.channels(make_report(), None) == ()


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
    """Takes what it is told to take."""

    def __init__(self, ledger: FakeLedger) -> None:
        self.sent: list[tuple[str, str]] = []
        self.calls = 0
        self.refused: dict[str, DeliveryFailed] = {}
        self.down: DeliveryFailed | DeadlineMissed | None = None
        self._ledger = ledger

    async def deliver(self, report: RunReport, addresses: Sequence[str]) -> Mapping[str, DeliveryFailed]:
        self.calls += 1
        assert self._ledger.states[-1] is DeliveryState.WAITING, "the attempt is written down first"
        if self.down is not None:
            raise self.down
        self.sent += [(report.run_id, one) for one in addresses if one not in self.refused]
        return {one: self.refused[one] for one in addresses if one in self.refused}


class World:
    """The notifier on fakes; each ``turn`` is a process of its own."""

    def __init__(self, *entries: Waiting, to: Sequence[str] = ("a@x.org",), on: Sequence[str] = tuple(Outcome)) -> None:
        self.outbox = FakeOutbox(*entries)
        self.ledger = FakeLedger()
        self.mailer = FakeMailer(self.ledger)
        self.log = Recorder()
        self.clock = SetClock()
        self.mail = make_mail(to=list(to), on=list(on))

    @property
    def ports(self) -> NotifierPorts:
        return NotifierPorts(
            outbox=self.outbox, ledger=self.ledger, mail=self.mail, mailer=self.mailer, log=self.log, clock=self.clock
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
    return Waiting(name=f"{run_id}.json", report=make_report(run_id, outcome=outcome))


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
    assert "Gave up telling a@x.org by mail about run r1: No such user. Correct mail.to." in world.log.lines()


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
