"""Works the outbox off: delivered at least once, tried again over restarts, never again once a channel has said yes.

Each attempt is written down before it is made and each yes right after it was heard, both fsynced. Only a crash
between the two can tell somebody twice, and then with the same Message-ID.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from immich_usb_backup.config import Mail
from immich_usb_backup.errors import BackupError, DeliveryFailed
from immich_usb_backup.events import Event
from immich_usb_backup.model import RunReport
from immich_usb_backup.policy import delivery
from immich_usb_backup.policy.delivery import Attempts, Waiting
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import Clock, Log

POLL_SECONDS = 30.0
"""How often the outbox is looked at while something waits for its next try. Nothing waiting: nobody looks."""


class Entries(Protocol):
    """The notifier's side of the outbox. Every method raises ``DeliveryFailed`` or ``DeadlineMissed``."""

    async def pending(self) -> tuple[Waiting, ...]:
        """All entries, the oldest run first."""

    async def discard(self, name: str) -> None:
        """Remove an entry."""

    async def set_aside(self, name: str) -> str:
        """Put an unreadable entry out of the way; returns its new name."""


class Ledger(Protocol):
    """What was tried and what was delivered, over restarts."""

    async def attempts(self, run_id: str, channel: str) -> Attempts | None:
        """What was tried so far."""

    async def record(self, *changed: Attempts) -> None:
        """Write down; on the server's disk when the call returns. Raises ``DeliveryFailed``, ``DeadlineMissed``."""


class Mailer(Protocol):
    """Sends mail."""

    async def deliver(self, report: RunReport, addresses: Sequence[str]) -> Mapping[str, DeliveryFailed]:
        """Mail a report; returns who was refused, all others have it. Raises ``DeliveryFailed``, ``DeadlineMissed``
        where nobody got it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierPorts:
    """Everything that the notifier is given. ``mail`` and ``mailer`` are None where no mail is configured."""

    outbox: Entries
    ledger: Ledger
    mail: Mail | None
    mailer: Mailer | None
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
        times = [await self._work_on(entry) for entry in entries if not self._stop.is_set()]
        waiting = [time for time in times if time is not None]
        if not waiting:
            return 0.0
        return max(0.0, (min(waiting) - self._ports.clock.now()).total_seconds())

    async def _work_on(self, entry: Waiting) -> datetime | None:
        """One entry; returns when it is due again, None where it is done with."""
        if entry.report is None:
            return await self._unreadable(entry)
        wanted = delivery.channels(entry.report, self._ports.mail)
        times = await self._due(entry.report, wanted)
        now = self._ports.clock.now()
        due = [channel for channel, time in times.items() if time <= now]
        if due and self._ports.mailer is not None:
            await self._deliver(entry.report, due, self._ports.mailer)
        left = await self._due(entry.report, wanted)
        return min(left.values()) if left else await self._discard(entry)

    async def _due(self, report: RunReport, wanted: Sequence[str]) -> dict[str, datetime]:
        """The channels that are not settled, and when each is to be tried."""
        now = self._ports.clock.now()
        known = {channel: await self._ports.ledger.attempts(report.run_id, channel) for channel in wanted}
        return {
            channel: delivery.due_at(before, now=now, started=self._started, said_yes=self._said_yes.get(channel))
            for channel, before in known.items()
            if before is None or not before.settled
        }

    async def _deliver(self, report: RunReport, due: Sequence[str], mailer: Mailer) -> None:
        begun = [await self._begun(report, channel) for channel in due]
        try:
            await self._ports.ledger.record(*begun)
        except BackupError as error:  # a yes could not be written down either, and would be told again
            self._say_failures(report, begun, dict.fromkeys(due, error))
            return
        failures = await self._send(report, due, mailer)
        now = self._ports.clock.now()
        ended = [_ended(attempts, failures.get(attempts.channel), now) for attempts in begun]
        await self._write_down(report, ended)
        self._said_yes |= {channel: now for channel in due if channel not in failures}
        self._say_failures(report, ended, failures)

    async def _begun(self, report: RunReport, channel: str) -> Attempts:
        before = await self._ports.ledger.attempts(report.run_id, channel)
        return delivery.begun(before, run_id=report.run_id, channel=channel, now=self._ports.clock.now())

    async def _send(self, report: RunReport, due: Sequence[str], mailer: Mailer) -> dict[str, BackupError]:
        """Those that failed, by channel."""
        by_address = {delivery.address(channel): channel for channel in due}
        try:
            refused = await mailer.deliver(report, tuple(by_address))
        except BackupError as error:
            return dict.fromkeys(due, error)
        return {by_address[address]: error for address, error in refused.items() if address in by_address}

    async def _write_down(self, report: RunReport, ended: Sequence[Attempts]) -> None:
        """A yes that cannot be written down is still known to this process, which removes the entry."""
        try:
            await self._ports.ledger.record(*ended)
        except BackupError as error:
            self._complain(f"{report.run_id}.json", error.message)

    def _say_failures(
        self, report: RunReport, attempts: Sequence[Attempts], failures: Mapping[str, BackupError]
    ) -> None:
        for one in attempts:
            self._say(report, one, failures.get(one.channel))

    def _say(self, report: RunReport, one: Attempts, error: BackupError | None) -> None:
        about = {"run": report.run_id, "disk": printable(report.disk.name), "channel": delivery.shown(one.channel)}
        if error is None:
            self._ports.log.say(Event.DELIVERED, **about)
            return
        seconds = (one.next_try - self._ports.clock.now()).total_seconds()
        event = Event.DELIVERY_GIVEN_UP if one.settled else Event.DELIVERY_FAILED
        self._ports.log.say(
            event,
            **about,
            about=report.run_id,
            message=error.message,
            hint=error.hint,
            seconds=seconds,
            tries=one.tries,
        )

    async def _unreadable(self, entry: Waiting) -> datetime | None:
        """Named and put out of the way; one that only cannot be read now stays, and holds up nobody."""
        later = self._ports.clock.now() + timedelta(seconds=POLL_SECONDS)
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
            return self._ports.clock.now() + timedelta(seconds=POLL_SECONDS)
        return None

    def _complain(self, name: str, message: str) -> None:
        """Once for each file: it is looked at every half minute."""
        if name not in self._complained:
            self._complained.add(name)
            self._ports.log.say(Event.OUTBOX_UNREADABLE, file=name, message=message)


def _ended(attempts: Attempts, error: BackupError | None, now: datetime) -> Attempts:
    if error is None:
        return delivery.delivered(attempts)
    permanent = isinstance(error, DeliveryFailed) and error.permanent
    return delivery.failed(attempts, now=now, permanent=permanent)
