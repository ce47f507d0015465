"""Who is told about what, when it is tried again, and when it is given up. Pure: the time is an argument.

A channel is one recipient: a mail to two addresses is two channels, so that one that was refused is tried again
without telling the other twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from immich_usb_backup.model import Notice, Outcome
from immich_usb_backup.policy.news import Begun, Ended, News, streak
from immich_usb_backup.policy.text import printable

PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1), timedelta(hours=4))
"""How long to wait after the first, second … failure; the last one repeats."""

GIVEN_UP_AFTER = timedelta(days=14)
SOON_AFTER_START = timedelta(minutes=1)
"""Somebody who mends the configuration restarts the notifier, and should not wait four hours for the proof."""

AGAIN_AFTER = timedelta(days=1)
"""How long a person who heard that a disk's backup went wrong is left alone while it goes wrong in the same way."""

BEGUN_FOR = timedelta(minutes=10)
"""After so long a monitor is not told any more that a run has begun: it would measure a time that is not true."""

PING = "ping"
"""The only channel of its kind."""
_MAIL, _PUSH = "mail:", "push:"


class DeliveryState(StrEnum):
    """Where the delivery of one entry through one channel stands. ``bundled``: it was not told, being one of many."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given-up"
    BUNDLED = "bundled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What was tried so far to tell one channel about one thing: ``run_id`` is its ``news_id``. Times are UTC wall clock:
    they outlive a restart."""

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
    """A file in the outbox: its news, or the problem with it. ``foreign``: no later look will make it readable."""

    name: str
    news: News | None = None
    problem: str = ""
    foreign: bool = False


def for_people(news: News, on: Sequence[Outcome]) -> bool:
    """Whether it is something for people who want to hear of the outcomes ``on``. Notices always are."""
    return isinstance(news, Notice) or (isinstance(news, Ended) and news.report.outcome in on)


def mail_channel(address: str) -> str:
    """The channel of a mail address."""
    return _MAIL + address


def mail_address(channel: str) -> str:
    """The mail address of a channel."""
    return channel.removeprefix(_MAIL)


def push_channel(kind: str, digest: str) -> str:
    """The channel of an address for pushed messages: ``kind`` is its scheme, ``digest`` tells it from others and gives
    nothing of it away."""
    return f"{_PUSH}{kind}:{digest}"


def shown(channel: str) -> str:
    """How messages call a channel. No secret is in it."""
    if channel == PING:
        return "the ping address"
    if channel.startswith(_PUSH):
        return f"{printable(channel.split(':')[1])} by push"
    return f"{printable(mail_address(channel))} by mail"


def about(news: News) -> str:
    """What messages call it."""
    if isinstance(news, Notice):
        return f"'{printable(news.headline)}'"
    run = f"the run on '{printable(news.report.disk.name)}'"
    return f"the beginning of {run}" if isinstance(news, Begun) else run


# Bundling -------------------------------------------------------------------------------------------------


def told_at(news: Ended, known: Sequence[Attempts | None]) -> datetime | None:
    """When a channel last heard of a run of this streak before this one. ``known`` are its records of those."""
    before = {one.run_id for one in streak(news)[:-1]}
    told = [a.last_try for a in known if a and a.run_id in before and a.state is DeliveryState.DELIVERED]
    return max(told, default=None)


def is_repeat(news: Ended, *, told: datetime | None, waiting: Sequence[News], now: datetime) -> bool:
    """Whether people need not hear of an outcome: they heard of the same less than a day ago, or will with a newer one that
    waits too. How often it was is said when they hear of it next. A good one, which has no streak, is none."""
    return any(_holds(one, news) for one in waiting) or (told is not None and timedelta(0) <= now - told < AGAIN_AFTER)


def _holds(newer: News, news: Ended) -> bool:
    before = streak(newer)[:-1] if isinstance(newer, Ended) else ()
    return any(one.run_id == news.report.run_id for one in before)


def begin_is_stale(news: Begun, waiting: Sequence[News], *, now: datetime) -> bool:
    """Whether nobody needs to hear any more that a run has begun: it is over, or that was long ago."""
    over = any(isinstance(one, Ended) and one.report.run_id == news.report.run_id for one in waiting)
    return over or now - news.report.started > BEGUN_FOR


# Trying again ---------------------------------------------------------------------------------------------


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


def bundled(*, run_id: str, channel: str, now: datetime) -> Attempts:
    """It is not told by itself."""
    return Attempts(
        run_id=run_id, channel=channel, tries=0, first_try=now, last_try=now, next_try=now, state=DeliveryState.BUNDLED
    )


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
