"""Units of ours that do one thing and are asked for their answer, by way of systemd.

They stay active when their process has ended, so its exit code and its status line are there until the unit is stopped.
Signals only wake us; what is believed is what systemd answers when it is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from immich_usb_backup.adapters.bus import Bus, Signal
from immich_usb_backup.errors import BackupError, DeadlineMissed
from immich_usb_backup.protect import protected

_NAME, _PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER, _UNIT, _SERVICE = f"{_NAME}.Manager", f"{_NAME}.Unit", f"{_NAME}.Service"
_PROPERTIES = "org.freedesktop.DBus.Properties"

STOP_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 5.0

_ON_THE_WAY = {"activating", "deactivating", "reloading"}


class Units:
    """Runs units to their ends. Everything raises ``BusCallFailed``, ``BusLost`` and ``DeadlineMissed``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._changed = asyncio.Event()
        self._listening = False

    async def run(self, unit: str, *, seconds: float) -> Mapping[str, Any]:
        """Start a unit, wait for its end at most so long, and return its properties. It is stopped in any case."""
        await self._listen()
        await self._stop(unit)  # a daemon that crashed may have left it with an old answer
        try:
            await self._manager("StartUnit", "ss", unit, "replace")
            return await self._settled(unit, seconds)
        finally:
            with suppress(BackupError):
                await protected(self._stop(unit))

    async def _stop(self, unit: str) -> None:
        await self._manager("StopUnit", "ss", unit, "replace")
        await self._settled(unit, STOP_SECONDS)

    async def _settled(self, unit: str, seconds: float) -> Mapping[str, Any]:
        """The unit's properties once nothing is going on with it. Raises ``DeadlineMissed``."""
        (path,) = await self._manager("LoadUnit", "s", unit)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            self._changed.clear()
            state = await self._properties(path, _UNIT)
            if not state["Job"][0] and state["ActiveState"] not in _ON_THE_WAY:
                return {**state, **await self._properties(path, _SERVICE)}
            left = deadline - loop.time()
            if left <= 0:
                raise DeadlineMissed(f"{unit} did not end within {seconds:.0f} seconds")
            await self._wait(min(left, _LOOK_AGAIN_SECONDS))

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _listen(self) -> None:
        """systemd tells the one who made a job of its end; others would have to subscribe."""
        if not self._listening:
            await self._bus.subscribe(self._on_signal, interface=_MANAGER, member="JobRemoved", sender=_NAME)
            self._listening = True

    def _on_signal(self, _: Signal) -> None:
        self._changed.set()

    async def _manager(self, member: str, signature: str, *body: str) -> tuple[Any, ...]:
        return await self._bus.call(_NAME, _PATH, _MANAGER, member, signature, body)

    async def _properties(self, path: str, interface: str) -> Mapping[str, Any]:
        (found,) = await self._bus.call(_NAME, path, _PROPERTIES, "GetAll", "s", [interface])
        return dict(found)
