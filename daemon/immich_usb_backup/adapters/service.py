"""The conversation with systemd: ready, what goes on, alive, stopping."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from sdnotify import SystemdNotifier

from immich_usb_backup.policy.text import harmless

_MICROSECONDS = 1_000_000
_LONGEST_STATUS = 400
_SEND_SECONDS = 0.2


class Service:
    """sd_notify with a short deadline: a service manager that does not listen must not hold a backup up."""

    def __init__(self) -> None:
        self._notifier = SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.settimeout(_SEND_SECONDS)

    def ready(self) -> None:
        """The monitor listens."""
        self._notifier.notify("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again; ``ready`` ends it."""
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service is about to end."""
        self._notifier.notify("STOPPING=1")

    def extend_timeout(self, seconds: int) -> None:
        """Ask for more time to stop or start: the last data is still being written."""
        self._notifier.notify(f"EXTEND_TIMEOUT_USEC={seconds * _MICROSECONDS}")

    def status(self, text: str) -> None:
        """What ``systemctl status`` shows. sdnotify drops what is not Latin-1 without a word, so ASCII it is."""
        line = harmless(text)[:_LONGEST_STATUS].encode("ascii", "replace").decode("ascii")
        self._notifier.notify(f"STATUS={line}")

    def close(self) -> None:
        """Nothing more will be said."""
        if self._notifier.socket is not None:
            self._notifier.socket.close()

    async def feed_watchdog(self, healthy: Callable[[], bool]) -> None:
        """Tell systemd that we are alive, from the loop and only while ``healthy``; returns at once where it does not
        ask. A loop that hangs does not get here, and systemd starts the service again."""
        interval = watchdog_seconds()
        from asyncio import sleep  # most of what the check of a disk would load, and it has no use for it

        while interval:
            if healthy():
                self._notifier.notify("WATCHDOG=1")
            await sleep(interval / 2)


def watchdog_seconds() -> float | None:
    """systemd's deadline for a sign of life, or None."""
    text = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / _MICROSECONDS if text.isdigit() and int(text) > 0 and mine else None
