"""Works the outbox off: delivered at least once, tried again over restarts, never again once a channel has said yes.

Each attempt is written down before it is made and each yes right after it was heard, both fsynced. Only a crash
between the two can tell somebody twice, and then with the same Message-ID.

People (mail, push) are told at once, and while the same disk goes wrong in the same way once a day at most, then with how
often it did. A monitor (ping) is told everything in its order: what is newer waits for what is older.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from immich_usb_backup.errors import BackupError, DeliveryFailed
from immich_usb_backup.events import Event
from immich_usb_backup.model import Notice
from immich_usb_backup.policy import delivery
from immich_usb_backup.policy.delivery import Attempts, Waiting
from immich_usb_backup.policy.news import Begun, Ended, News, news_id, streak
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import Clock, Log

POLL_SECONDS = 30.0
"""How often the outbox is looked at while something waits for its next try. Nothing waiting: nobody looks."""


class Entries(Protocol):
    """The notifier's side of the outbox. Every method raises ``DeliveryFailed`` or ``DeadlineMissed``."""

    async def pending(self) -> tuple[Waiting, ...]:
        """All entries, the oldest first."""

    async def discard(self, name: str) -> None:
        """Remove an entry."""

    async def set_aside(self, name: str) -> str:
        """Put an unreadable entry out of the way; returns its new name."""


class Ledger(Protocol):
    """What was tried and what was delivered, over restarts."""

    async def attempts(self, run_id: str, channel: str) -> Attempts | None:
        """What was tried so far. ``run_id`` is a ``news_id``."""

    async def record(self, *changed: Attempts) -> None:
        """Write down; on the server's disk when the call returns. Raises ``DeliveryFailed``, ``DeadlineMissed``."""


class Courier(Protocol):
    """One way to tell somebody."""

    in_order: bool
    """Whether it tells a machine, which must hear everything and in its order; else people, for whom repeats are bundled."""

    async def channels(self, news: News) -> tuple[str, ...]:
        """Whom this is for, as it is configured."""

    async def deliver(self, news: News, channels: Sequence[str]) -> Mapping[str, BackupError]:
        """Tell them; returns who was refused, all others have it. Raises ``DeliveryFailed``, ``DeadlineMissed`` where
        nobody got it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierPorts:
    """Everything that the notifier is given."""

    outbox: Entries
    ledger: Ledger
    couriers: tuple[Courier, ...]
    log: Log
    clock: Clock


async def deliver_all(ports: NotifierPorts, *, stop: asyncio.Event, poll_seconds: float = POLL_SECONDS) -> None:
    """Return when nothing is pending any more, or soon after ``stop``: never in the middle of a message.

    Raises ``DeliveryFailed`` where the outbox or the book of deliveries cannot be used at all.
    """
    notifier = _Notifier(ports, stop)
    while not stop.is_set() and (entries := await ports.outbox.pending()):
        seconds = await notifier.work_through(entries)
        await _pause(stop, min(seconds, poll_seconds))


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        waiting = asyncio.ensure_future(stop.wait())
        await asyncio.wait({waiting}, timeout=seconds)
        waiting.cancel()


class _Notifier:
    def __init__(self, ports: NotifierPorts, stop: asyncio.Event) -> None:
        self._ports = ports
        self._stop = stop
        self._started = ports.clock.now()
        self._said_yes: dict[str, datetime] = {}
        self._complained: set[str] = set()

    async def work_through(self, entries: Sequence[Waiting]) -> float:
        """Do all that is due; returns the seconds until something else is, 0 where that may be now."""
        times = [await self._unreadable(entry) for entry in entries if entry.news is None]
        waiting = [entry.news for entry in entries if entry.news is not None]
        for courier in self._ports.couriers:
            await (self._tell_in_order(courier, waiting) if courier.in_order else self._tell_people(courier, waiting))
        if not self._stop.is_set():
            times += [await self._close(entry, waiting) for entry in entries if entry.news is not None]
        left = [time for time in times if time is not None]
        return max(0.0, (min(left) - self._now()).total_seconds()) if left else 0.0

    def _now(self) -> datetime:
        return self._ports.clock.now()

    # Who is to be told, and when ------------------------------------------------------------------------------

    async def _tell_people(self, courier: Courier, waiting: Sequence[News]) -> None:
        for news in waiting:
            due = await self._due(courier, news, waiting)
            now = [channel for channel, time in due.items() if time <= self._now()]
            if now and not self._stop.is_set():
                await self._deliver(courier, news, now)

    async def _tell_in_order(self, courier: Courier, waiting: Sequence[News]) -> None:
        """When one is due, all are, the oldest first. Once one has failed, those after it have too."""
        due = [(news, await self._due(courier, news, waiting)) for news in waiting]
        if not any(time <= self._now() for _, channels in due for time in channels.values()):
            return
        down: BackupError | None = None
        for news, channels in due:
            if not channels or self._stop.is_set():
                continue
            if down is None:
                down = next(iter((await self._deliver(courier, news, list(channels))).values()), None)
            else:
                await self._put_off(news, list(channels))

    async def _due(self, courier: Courier, news: News, waiting: Sequence[News]) -> dict[str, datetime]:
        """The channels that are not settled, and when each is to be tried."""
        channels = await courier.channels(news)
        known = {channel: await self._ports.ledger.attempts(news_id(news), channel) for channel in channels}
        open_ = {channel: before for channel, before in known.items() if before is None or not before.settled}
        if isinstance(news, Begun):
            return {} if await self._is_stale(news, channels, waiting) else self._tries(open_)
        if isinstance(news, Ended) and not courier.in_order:
            return await self._without_repeats(news, self._tries(open_), waiting)
        return self._tries(open_)

    async def _is_stale(self, news: Begun, channels: Sequence[str], waiting: Sequence[News]) -> bool:
        """Also when its end was told and only could not be removed: a beginning is never told after it."""
        ended = [await self._ports.ledger.attempts(news.report.run_id, channel) for channel in channels]
        return any(ended) or delivery.begin_is_stale(news, waiting, now=self._now())

    def _tries(self, known: Mapping[str, Attempts | None]) -> dict[str, datetime]:
        return {
            channel: delivery.due_at(
                before, now=self._now(), started=self._started, said_yes=self._said_yes.get(channel)
            )
            for channel, before in known.items()
        }

    async def _without_repeats(
        self, news: Ended, due: Mapping[str, datetime], waiting: Sequence[News]
    ) -> dict[str, datetime]:
        times: dict[str, datetime] = {}
        for channel, time in due.items():
            known = [await self._ports.ledger.attempts(one.run_id, channel) for one in streak(news)[:-1]]
            if delivery.is_repeat(news, told=delivery.told_at(news, known), waiting=waiting, now=self._now()):
                await self._bundle(news, channel)
            else:
                times[channel] = time
        return times

    async def _bundle(self, news: Ended, channel: str) -> None:
        about = _fields(news, channel)
        self._ports.log.say(Event.HELD_BACK, **about)
        await self._write_down(news, [delivery.bundled(run_id=news_id(news), channel=channel, now=self._now())])

    # Telling --------------------------------------------------------------------------------------------------

    async def _deliver(self, courier: Courier, news: News, due: Sequence[str]) -> Mapping[str, BackupError]:
        """Returns the failures, by channel."""
        begun = [await self._begun(news, channel) for channel in due]
        try:
            await self._ports.ledger.record(*begun)
        except BackupError as error:  # a yes could not be written down either, and would be told again
            failures: dict[str, BackupError] = dict.fromkeys(due, error)
            self._say_all(news, begun, failures)
            return failures
        failures = await self._send(courier, news, due)
        ended = [_ended(attempts, failures.get(attempts.channel), self._now()) for attempts in begun]
        await self._write_down(news, ended)
        self._said_yes |= {channel: self._now() for channel in due if channel not in failures}
        self._say_all(news, ended, failures)
        return failures

    async def _put_off(self, news: News, due: Sequence[str]) -> None:
        """A try that failed, as the one before it did, without being made."""
        begun = [await self._begun(news, channel) for channel in due]
        put_off = [delivery.failed(one, now=self._now(), permanent=False) for one in begun]
        await self._write_down(news, put_off)

    async def _begun(self, news: News, channel: str) -> Attempts:
        before = await self._ports.ledger.attempts(news_id(news), channel)
        return delivery.begun(before, run_id=news_id(news), channel=channel, now=self._now())

    async def _send(self, courier: Courier, news: News, due: Sequence[str]) -> dict[str, BackupError]:
        """Those that failed, by channel."""
        try:
            refused = await courier.deliver(news, due)
        except BackupError as error:
            return dict.fromkeys(due, error)
        return {channel: error for channel, error in refused.items() if channel in due}

    async def _write_down(self, news: News, ended: Sequence[Attempts]) -> None:
        """A yes that cannot be written down is still known to this process, which removes the entry."""
        try:
            await self._ports.ledger.record(*ended)
        except BackupError as error:
            self._complain(f"{news_id(news)}.json", error.message)

    # Saying so ------------------------------------------------------------------------------------------------

    def _say_all(self, news: News, attempts: Sequence[Attempts], failures: Mapping[str, BackupError]) -> None:
        for one in attempts:
            self._say(news, one, failures.get(one.channel))

    def _say(self, news: News, one: Attempts, error: BackupError | None) -> None:
        about = _fields(news, one.channel)
        if error is None:
            self._ports.log.say(Event.DELIVERED, **about)
            return
        self._ports.log.say(
            Event.DELIVERY_GIVEN_UP if one.settled else Event.DELIVERY_FAILED,
            **about,
            about=news_id(news),
            message=error.message,
            hint=error.hint,
            seconds=(one.next_try - self._now()).total_seconds(),
            tries=one.tries,
        )

    # The entries themselves -----------------------------------------------------------------------------------

    async def _close(self, entry: Waiting, waiting: Sequence[News]) -> datetime | None:
        """When it is due again; None where it is done with, and gone."""
        assert entry.news is not None
        left = [time for c in self._ports.couriers for time in (await self._due(c, entry.news, waiting)).values()]
        return min(left) if left else await self._discard(entry)

    async def _unreadable(self, entry: Waiting) -> datetime | None:
        """Named and put out of the way; one that only cannot be read now stays, and holds up nobody."""
        later = self._now() + timedelta(seconds=POLL_SECONDS)
        if not entry.foreign:
            self._complain(entry.name, entry.problem)
            return later
        try:
            aside = await self._ports.outbox.set_aside(entry.name)
        except BackupError as error:
            self._complain(entry.name, f"{entry.problem} {error.message}")
            return later
        self._complain(entry.name, f"{entry.problem} Set aside as {printable(aside)}.")
        self._complained.discard(entry.name)
        return None

    async def _discard(self, entry: Waiting) -> datetime | None:
        try:
            await self._ports.outbox.discard(entry.name)
        except BackupError as error:
            self._complain(entry.name, error.message)
            return self._now() + timedelta(seconds=POLL_SECONDS)
        return None

    def _complain(self, name: str, message: str) -> None:
        """Once for each file: it is looked at every half minute."""
        if name not in self._complained:
            self._complained.add(name)
            self._ports.log.say(Event.OUTBOX_UNREADABLE, file=name, message=message)


def _fields(news: News, channel: str) -> dict[str, str]:
    """The fields of the journal that tell what it is about."""
    fields = {"channel": delivery.shown(channel), "what": delivery.about(news)}
    if isinstance(news, Notice):
        return {**fields, "disk": printable(news.disk_name)}
    return {**fields, "run": news.report.run_id, "disk": printable(news.report.disk.name)}


def _ended(attempts: Attempts, error: BackupError | None, now: datetime) -> Attempts:
    if error is None:
        return delivery.delivered(attempts)
    permanent = isinstance(error, DeliveryFailed) and error.permanent
    return delivery.failed(attempts, now=now, permanent=permanent)
