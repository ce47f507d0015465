"""A logind inhibitor: while it is held, the machine neither sleeps nor shuts down."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.errors import BackupError
from immich_usb_backup.events import Event
from immich_usb_backup.ports import Log

_NAME, _PATH = "org.freedesktop.login1", "/org/freedesktop/login1"

# Two calls: for both at once systemd 252 asks polkit for the leave to handle the lid switch (measured).
_WHAT = ("sleep", "shutdown")


class LogindInhibitor:
    """The ``Inhibitor`` port on logind."""

    def __init__(self, bus: Bus, log: Log) -> None:
        self._bus = bus
        self._log = log

    @asynccontextmanager
    async def held(self, why: str) -> AsyncIterator[None]:
        """Hold sleep and shutdown off. Without logind or without its leave: a line in the log."""
        descriptors = [descriptor for what in _WHAT if (descriptor := await self._take(what, why)) is not None]
        try:
            yield
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _take(self, what: str, why: str) -> int | None:
        body = [what, "immich-usb-backup", why, "block"]
        try:
            return await self._bus.call_fd(_NAME, _PATH, f"{_NAME}.Manager", "Inhibit", "ssss", body)
        except BackupError as error:
            self._log.say(Event.NO_INHIBITOR, what=what, message=error.message)
            return None
