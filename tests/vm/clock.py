"""The guest's clock, set by hand as an administrator does it: timers by the calendar fire, others do not."""

from __future__ import annotations

import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.vm.guest import DEVICE_SECONDS, Guest


@asynccontextmanager
async def clock_jumped(guest: Guest, to: str) -> AsyncIterator[None]:
    """The clock stands where ``date`` understands ``to``, such as ``+8 days`` or ``2027-01-03 04:00``, and goes on from
    there; at the end it shows the host's time again.

    systemd notices at once: a timer with ``OnCalendar=`` that lies in between fires, when its ``RandomizedDelaySec=`` and
    ``AccuracySec=`` allow. ``OnBootSec=`` and its like follow another clock. What is written meanwhile is dated so.
    """
    await guest.sh(f"date --set={shlex.quote(to)}")
    try:
        yield
    finally:
        await guest.sh(f"date --set=@{time.time():.0f}")


async def invocation(guest: Guest, unit: str) -> str:
    """Tells one start of a unit from another; empty for one that never ran."""
    return (await guest.sh(f"systemctl show --property=InvocationID --value {shlex.quote(unit)}")).stdout.strip()


async def started_again(guest: Guest, unit: str, before: str, *, timeout: float = DEVICE_SECONDS) -> None:
    """Wait until a unit was started once more since ``invocation`` said ``before``."""
    shown = f"systemctl show --property=InvocationID --value {shlex.quote(unit)}"
    await guest.until(f'now=$({shown}); test -n "$now" && test "$now" != "{before}"', timeout=timeout)
