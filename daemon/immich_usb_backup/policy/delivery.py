"""Who is told about a run, when it is tried again, and when it is given up. Pure: the time is an argument.

A channel is one recipient: a mail to two addresses is two channels, so that one that was refused is tried again
without telling the other twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from immich_usb_backup.config import Mail
from immich_usb_backup.model import RunReport
from immich_usb_backup.policy.text import printable

PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1), timedelta(hours=4))
"""How long to wait after the first, second … failure; the last one repeats."""

GIVEN_UP_AFTER = timedelta(days=14)
SOON_AFTER_START = timedelta(minutes=1)
"""Somebody who mends the configuration restarts the notifier, and should not wait four hours for the proof."""

_MAIL = "mail:"


class DeliveryState(StrEnum):
    """Where the delivery of one report through one channel stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What was tried so far to tell one channel about one run. Times are UTC wall clock: they outlive a restart."""

    run_id: str
    channel: str
    tries: int
    first_try: datetime
    last_try: datetime
    next_try: datetime
    state: DeliveryState = DeliveryState.WAITING

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be done."""
        return self.state is not DeliveryState.WAITING


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A file in the outbox: a report, or the problem with it. ``foreign``: no later look will make it readable."""

    name: str
    report: RunReport | None = None
    problem: str = ""
    foreign: bool = False


def channels(report: RunReport, mail: Mail | None) -> tuple[str, ...]:
    """Whom the configuration wants to be told about this outcome."""
    if mail is None or report.outcome not in mail.on:
        return ()
    return tuple(dict.fromkeys(_MAIL + address for address in mail.to))


def address(channel: str) -> str:
    """The mail address of a channel."""
    return channel.removeprefix(_MAIL)


def shown(channel: str) -> str:
    """How messages call a channel."""
    return f"{printable(address(channel))} by mail"


def pause(tries: int) -> timedelta:
    """How long to wait after so many failures in a row."""
    return PAUSES[min(max(tries, 1), len(PAUSES)) - 1]


def begun(before: Attempts | None, *, run_id: str, channel: str, now: datetime) -> Attempts:
    """The record as it must be on the disk before the attempt: one that kills the process counts as a failure."""
    tries = before.tries + 1 if before else 1
    first = before.first_try if before else now
    next_try = now + pause(tries)
    return Attempts(run_id=run_id, channel=channel, tries=tries, first_try=first, last_try=now, next_try=next_try)


def delivered(attempts: Attempts) -> Attempts:
    """The channel said yes."""
    return replace(attempts, state=DeliveryState.DELIVERED)


def failed(attempts: Attempts, *, now: datetime, permanent: bool) -> Attempts:
    """The channel said no, or nothing."""
    if permanent or now - attempts.first_try >= GIVEN_UP_AFTER:
        return replace(attempts, state=DeliveryState.GIVEN_UP)
    return replace(attempts, next_try=now + pause(attempts.tries))


def due_at(
    attempts: Attempts | None, *, now: datetime, started: datetime, said_yes: datetime | None = None
) -> datetime:
    """When to try (again). ``started``: of this process. ``said_yes``: when this channel last took another message."""
    if attempts is None or (said_yes is not None and said_yes > attempts.last_try):
        return now
    due = attempts.next_try
    if attempts.last_try < started:
        due = min(due, started + SOON_AFTER_START)
    clock_was_set_back = due - now > PAUSES[-1]
    return now if clock_was_set_back else due
