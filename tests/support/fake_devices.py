"""Sticks, and udev as it tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from immich_usb_backup.model import BACKUP_FOLDER, DeviceAction, PartitionSeen, PlugIn
from tests.support.script import Script


@dataclass
class Stick:
    """A disk: `seen` is its present plug-in, `root` its content, `mounted_by` nobody, us or a desktop. `capacity` is in
    bytes; nothing stops a test from writing more."""

    seen: PartitionSeen
    root: Path
    mounted_by: str = ""
    read_only_mount: bool = False
    write_protected: bool = False
    desktop_lets_us_write: bool = False
    connection_bus: str = "usb"
    capacity: int = 10**12
    holders: list[str] = field(default_factory=list)

    @property
    def backups(self) -> Path:
        """The folder that may be written to."""
        return self.root / BACKUP_FOLDER


class FakeDevices:
    """Implements ``ports.Devices``."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._events: asyncio.Queue[PartitionSeen] = asyncio.Queue()
        self.plugged: dict[PlugIn, Stick] = {}

    async def start(self) -> None:
        """Begin."""
        await self._script.at("devices.start")

    async def events(self) -> AsyncIterator[PartitionSeen]:
        """What the test lets happen."""
        while True:
            yield await self._events.get()

    def present(self, plug_in: PlugIn) -> bool:
        """As the kernel has it."""
        return plug_in in self.plugged

    async def gone(self, plug_in: PlugIn, *, seconds: float) -> bool:
        """A test lets it vanish at this step where it wants to."""
        await self._script.at("devices.gone")
        return not self.present(plug_in)

    def plug(self, stick: Stick, action: DeviceAction = DeviceAction.ADD) -> None:
        """Plug it in."""
        self.plugged[stick.seen.plug_in] = stick
        self.say(stick, action)

    def pull(self, stick: Stick, *, tell: bool = True) -> None:
        """Pull it; its mount goes with it."""
        self.plugged.pop(stick.seen.plug_in, None)
        stick.mounted_by = ""
        if tell:
            self.say(stick, DeviceAction.REMOVE)

    def plug_again(self, stick: Stick) -> None:
        """Plug it in anew: the kernel counts on."""
        plug_in = replace(stick.seen.plug_in, disk_sequence=stick.seen.plug_in.disk_sequence + 100)
        stick.seen = replace(stick.seen, plug_in=plug_in)
        self.plug(stick)

    def say(self, stick: Stick, action: DeviceAction) -> None:
        """Only the event."""
        self._events.put_nowait(replace(stick.seen, action=action))
