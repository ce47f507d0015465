"""Checking and repairing by way of systemd: a unit of its own for each, which may open that one device.

The daemon may not open block devices. It may start and stop these two units and no others (the polkit rule says so), and
reads the answer from the unit: they stay active when their process has ended, so its exit code and its status line are
there until the unit is stopped. Signals only wake us; what is believed is what systemd answers when it is asked.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from immich_usb_backup.adapters.bus import Bus, Signal
from immich_usb_backup.errors import BackupError, BusCallFailed, DeadlineMissed, DiskGone
from immich_usb_backup.model import Health, Partition
from immich_usb_backup.policy.file_system import EXIT_CODES
from immich_usb_backup.policy.text import harmless
from immich_usb_backup.protect import protected

_NAME, _PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER, _UNIT, _SERVICE = f"{_NAME}.Manager", f"{_NAME}.Unit", f"{_NAME}.Service"
_PROPERTIES = "org.freedesktop.DBus.Properties"

CHECK_SECONDS = 2 * 3600.0
"""A check reads each folder once (measured): 65,000 folders on a hard disk at 10 ms are 11 minutes. The units have a
deadline of their own, a little later."""

STOP_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 5.0

_NODE = re.compile(r"/dev/([a-zA-Z0-9-]+)")
_ON_THE_WAY = {"activating", "deactivating", "reloading"}
_HEALTH = {code: health for health, code in EXIT_CODES.items()}


class SystemdFileSystems:
    """The ``FileSystems`` port on the real systemd."""

    def __init__(self, bus: Bus, *, seconds: float = CHECK_SECONDS) -> None:
        self._bus = bus
        self._seconds = seconds
        self._changed = asyncio.Event()
        self._listening = False

    async def check(self, partition: Partition) -> tuple[Health, str]:
        """Look, and change nothing."""
        return await self._ask("check", partition)

    async def repair(self, partition: Partition) -> tuple[Health, str]:
        """Look, and mend what is damaged in the backup folder."""
        return await self._ask("repair", partition)

    async def _ask(self, what: str, partition: Partition) -> tuple[Health, str]:
        node = _NODE.fullmatch(partition.device_node)
        if node is None:
            return Health.UNKNOWN, f"{harmless(partition.device_node)} is no name for a unit"
        _refuse_another(partition)
        unit = f"immich-usb-backup-{what}@{_escaped(node[1])}.service"
        try:
            health, said = await self._run(unit)
        except BusCallFailed as error:
            health, said = Health.UNKNOWN, f"systemd does not run {unit}: {harmless(error.message)}"
        _refuse_another(partition)
        return _about(partition, health, said)

    async def _run(self, unit: str) -> tuple[Health, str]:
        """Start a unit, wait for its end and read its answer. It is stopped in any case."""
        await self._listen()
        await self._stop(unit)  # a daemon that crashed may have left it with an old answer
        try:
            await self._manager("StartUnit", "ss", unit, "replace")
            return _answer(await self._settled(unit, self._seconds))
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


def _escaped(name: str) -> str:
    """As ``systemd-escape`` does it, for the names that get here: a bare hyphen would mean a slash."""
    return name.replace("-", "\\x2d")


def _refuse_another(partition: Partition) -> None:
    """The unit goes by the device's name, which may be another disk's by now. Raises ``DiskGone``."""
    try:
        number = os.stat(partition.device_node).st_rdev
    except OSError as error:
        raise DiskGone(f"{partition.device_node} is gone") from error
    if number != partition.device_number:
        raise DiskGone(f"{partition.device_node} is another disk by now")


def _answer(unit: Mapping[str, Any]) -> tuple[Health, str]:
    status, said = unit["ExecMainStatus"], harmless(str(unit["StatusText"]))
    if unit["ActiveState"] == "active" and status in _HEALTH:
        return _HEALTH[status], said
    return Health.UNKNOWN, f"the check ended with {harmless(str(unit['Result']))} ({status}) {said}".rstrip()


def _about(partition: Partition, health: Health, said: str) -> tuple[Health, str]:
    """The answer names the file system that was looked at: another disk's is not this one's. Raises ``DiskGone``."""
    text = said.removeprefix(f"{health.value}: ")
    if health is Health.UNKNOWN:
        return health, text
    serial, _, rest = text.partition(": ")
    if serial.lower() != partition.uuid.lower():
        raise DiskGone(f"{partition.device_node} held another file system when it was checked")
    return health, rest
