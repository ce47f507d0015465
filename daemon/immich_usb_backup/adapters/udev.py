"""Block devices through pyudev, in the event loop, as frozen values.

A burst of events overflows the monitor's socket; then every read raises, and a plain reader would spin at 100 % CPU
(measured). The cure: clear the socket's error, and look at everything again. ``MonitorObserver`` dies of it instead.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyudev

from immich_usb_backup.errors import CommandFailed
from immich_usb_backup.events import Event
from immich_usb_backup.model import DeviceAction, PartitionSeen, PlugIn
from immich_usb_backup.ports import Log

_SECTOR = 512
_READ_AT_ONCE = 256
_GONE_LOOK_SECONDS = 0.1
_HEX = re.compile(rb"\\x([0-9a-fA-F]{2})")
_ACTIONS = {"add": DeviceAction.ADD, "remove": DeviceAction.REMOVE}
_BLOCK_NUMBERS = Path("/sys/dev/block")


class UdevDevices:
    """The ``Devices`` port on the real udev."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._context = pyudev.Context()
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        self._known: dict[int, PartitionSeen] = {}
        self._pending: deque[PartitionSeen] = deque()
        self._arrived = asyncio.Event()
        self._monitor: Any = None
        self._second_look: asyncio.Future[None] | None = None

    def present(self, plug_in: PlugIn) -> bool:
        """Whether the device is there with the sequence number of this plug-in. Reads sysfs, which does not block."""
        number = plug_in.device_number
        device = _BLOCK_NUMBERS / f"{os.major(number)}:{os.minor(number)}"
        if plug_in.boot_id != self._boot_id or not device.exists():
            return False
        sequence = _disk_sequence(device)
        return sequence is None or sequence == plug_in.disk_sequence

    async def gone(self, plug_in: PlugIn, *, seconds: float) -> bool:
        """Whether it has left the machine, or does so within ``seconds``: a pulled disk fails before it is gone."""
        deadline = time.monotonic() + seconds
        while self.present(plug_in):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_GONE_LOOK_SECONDS)
        return True

    def presence(self, device_number: int) -> Callable[[], bool]:
        """Tells, whenever it is called, whether what has this number now is still there (and not another in its place)."""
        known = self._known.get(device_number)
        return (lambda: True) if known is None else (lambda: self.present(known.plug_in))

    def now(self) -> tuple[PartitionSeen, ...]:
        """All block devices that there are, in the order of their names."""
        devices = self._context.list_devices(subsystem="block")
        return tuple(sorted((self._seen(d, DeviceAction.PRESENT) for d in devices), key=lambda seen: seen.device_node))

    async def start(self) -> None:
        """Listen first, then look, so that nothing is missed. Raises ``CommandFailed`` where udev does not run."""
        self._monitor = self._start_monitor()
        asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._read, self._monitor)
        await self._look_at_everything()

    def stop(self) -> None:
        """Listen no longer."""
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor = None

    async def events(self) -> AsyncIterator[PartitionSeen]:
        """What was there, then what comes and goes."""
        while True:
            while self._pending:
                yield self._pending.popleft()
            self._arrived.clear()
            await self._arrived.wait()

    def _start_monitor(self) -> Any:
        try:
            monitor = pyudev.Monitor.from_netlink(self._context, source="udev")
            monitor.filter_by("block")
            monitor.start()
        except (OSError, ValueError) as error:
            raise CommandFailed(
                f"udev's events cannot be received: {error}", hint="Is systemd-udevd running?"
            ) from error
        return monitor

    async def _look_at_everything(self) -> None:
        """Report what is there, and as removed what we knew and is not there any more."""
        there = await asyncio.to_thread(self.now)
        plug_ins = {seen.plug_in for seen in there}
        for gone in [seen for seen in self._known.values() if seen.plug_in not in plug_ins]:
            if not self.present(gone.plug_in):  # else it came while the others were looked at
                self._push(replace(gone, action=DeviceAction.REMOVE))
        for seen in there:
            if self.present(seen.plug_in):
                self._push(seen)

    def _push(self, seen: PartitionSeen) -> None:
        number = seen.plug_in.device_number
        if seen.action is DeviceAction.REMOVE:
            known = self._known.get(number)
            if known is not None and self.present(known.plug_in):
                return  # old news: another one is there by now, and was met in a look at everything
            self._known.pop(number, None)
            seen = replace(known, action=DeviceAction.REMOVE) if known else seen
        else:
            self._known[number] = seen
        self._pending.append(seen)
        self._arrived.set()

    def _read(self, monitor: Any) -> None:
        try:
            for device in _drain(monitor):
                self._push(self._seen(device, _ACTIONS.get(device.action, DeviceAction.CHANGE)))
        except OSError:
            _clear_error(monitor)
            self._log.say(Event.MONITOR_OVERFLOW)
            self._look_again()

    def _look_again(self) -> None:
        """One look at a time: a burst overflows many times, and each look sees everything."""
        if self._second_look is None or self._second_look.done():
            self._second_look = asyncio.ensure_future(self._look_at_everything())

    def _seen(self, device: Any, action: DeviceAction) -> PartitionSeen:
        number = device.device_number
        return PartitionSeen(
            action=action,
            device_node=str(device.device_node or device.sys_name),
            plug_in=PlugIn(boot_id=self._boot_id, disk_sequence=_sequence(device), device_number=number),
            transport=_transport(device, action),
            file_system=_text(device, "ID_FS_TYPE"),
            uuid=_text(device, "ID_FS_UUID"),
            label=_decoded(_text(device, "ID_FS_LABEL_ENC")) or _text(device, "ID_FS_LABEL"),
            model=_decoded(_text(device, "ID_MODEL_ENC")).strip() or _text(device, "ID_MODEL"),
            serial=_text(device, "ID_SERIAL_SHORT"),
            size=_sectors(device) * _SECTOR,
            has_partitions=bool(_text(device, "ID_PART_TABLE_TYPE")) and not _text(device, "ID_FS_TYPE"),
        )


def _drain(monitor: Any) -> Iterator[Any]:
    for _ in range(_READ_AT_ONCE):
        device = monitor.poll(timeout=0)
        if device is None:
            return
        yield device


def _clear_error(monitor: Any) -> None:
    """Reading SO_ERROR takes ENOBUFS off the socket; without it every poll reports it again."""
    with socket.socket(fileno=os.dup(monitor.fileno())) as twin:
        twin.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _text(device: Any, name: str) -> str:
    """A property; what is not UTF-8 counts as not there (the encoded twins have it)."""
    try:
        return str(device.properties.get(name) or "")
    except UnicodeDecodeError:
        return ""


def _decoded(encoded: str) -> str:
    """udev's ``\\xNN`` encoding undone; bytes that are not UTF-8 become replacement characters."""
    raw = encoded.encode("utf-8", "surrogateescape")
    return _HEX.sub(lambda match: bytes([int(match[1], 16)]), raw).decode("utf-8", "replace")


def _transport(device: Any, action: DeviceAction) -> str:
    """The bus. USB by its parents: in enclosures some udev versions say ID_BUS=ata."""
    if device.sys_name.startswith("loop"):
        return "loop"
    for subsystem in ("usb", "mmc"):
        if action is not DeviceAction.REMOVE and device.find_parent(subsystem) is not None:
            return subsystem
    return _text(device, "ID_BUS") or device.sys_name.rstrip("0123456789")


def _sequence(device: Any) -> int:
    """DISKSEQ, which the kernel raises with each plug-in; before kernel 5.15 the time when udev first saw it."""
    text = _text(device, "DISKSEQ")
    if not text.isdigit() and (found := _disk_sequence(Path(device.sys_path))) is not None:
        return found  # udev before 251 has it on disks only, the kernel has it on all
    text = text or _text(device, "USEC_INITIALIZED")
    return int(text) if text.isdigit() else 0


def _disk_sequence(device: Path) -> int | None:
    """A block device's sequence number in sysfs; a partition's is its disk's. None before kernel 5.15."""
    folder = device.resolve()
    for candidate in (folder / "diskseq", folder.parent / "diskseq"):
        try:
            return int(candidate.read_text("ascii"))
        except (OSError, ValueError):
            continue
    return None


def _sectors(device: Any) -> int:
    try:
        return int(device.attributes.asint("size"))
    except (KeyError, ValueError, UnicodeDecodeError):
        return 0
