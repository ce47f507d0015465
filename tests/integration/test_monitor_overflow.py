"""A burst of udev events that overflows the monitor's socket: looked at again, heard further, no spin."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from immich_usb_backup.adapters.udev import UdevDevices
from immich_usb_backup.events import Event
from immich_usb_backup.model import DeviceAction, PartitionSeen
from tests.support import host
from tests.support.real_disks import seen_disk
from tests.support.telling import Recorder

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]

HANGS_AFTER = 30.0


class Counting(UdevDevices):
    """Counts how often the loop had it read."""

    reads = 0

    def _read(self, monitor: Any) -> None:
        self.reads += 1
        super()._read(monitor)


@pytest.fixture(autouse=True)
def udev() -> Iterator[None]:
    with host.udev(), host.exfat_mounts():
        yield


@pytest.fixture
async def devices() -> AsyncIterator[Counting]:
    devices = Counting(Recorder())
    await devices.start()
    yield devices
    devices.stop()
    devices._monitor = None


async def _next(events: AsyncIterator[PartitionSeen], wanted: Callable[[PartitionSeen], bool]) -> PartitionSeen:
    async with asyncio.timeout(HANGS_AFTER):
        async for seen in events:
            if wanted(seen):
                return seen
    raise AssertionError("unreachable")


def _shrink(devices: UdevDevices) -> None:
    """The smallest buffer that the kernel gives."""
    with socket.socket(fileno=os.dup(devices._monitor.fileno())) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


def _burst(disk: host.Disk) -> None:
    """Far more than the buffer holds, while nobody reads: this blocks the loop."""
    for _ in range(40):
        host.run("udevadm", "trigger", "--action=change", f"--name-match={disk.device}")
    host.settle()


async def test_after_an_overflow_everything_is_looked_at_and_heard_again(devices: Counting) -> None:
    log = devices._log
    assert isinstance(log, Recorder)
    events = devices.events()
    async with host.in_thread(host.exfat_disk(16)) as disk:
        number = disk.device_number
        await _next(events, lambda seen: seen.plug_in.device_number == number and seen.file_system == "exfat")
        _shrink(devices)
        devices.reads = 0
        _burst(disk)
        again = await _next(
            events, lambda seen: seen.plug_in.device_number == number and seen.action is DeviceAction.PRESENT
        )
        assert again.plug_in == seen_disk(disk).plug_in
        assert Event.MONITOR_OVERFLOW in log.events()
        assert devices.reads < 100  # a spin makes thousands
        before = devices.reads
        for _ in range(1000):
            await asyncio.sleep(0)
        assert devices.reads - before < 20
        await asyncio.to_thread(disk.detach)
        gone = await _next(
            events, lambda seen: seen.plug_in.device_number == number and seen.action is DeviceAction.REMOVE
        )
        assert gone.plug_in == again.plug_in


async def test_a_disk_that_went_while_events_were_lost_is_told_as_removed(devices: Counting) -> None:
    events = devices.events()
    async with host.in_thread(host.exfat_disk(16)) as disk:
        number, plug_in = disk.device_number, seen_disk(disk).plug_in
        await _next(events, lambda seen: seen.plug_in == plug_in)
        asyncio.get_running_loop().remove_reader(devices._monitor.fileno())  # deaf
        await asyncio.to_thread(disk.detach)
        await devices._look_at_everything()
        gone = await _next(
            events, lambda seen: seen.plug_in.device_number == number and seen.action is DeviceAction.REMOVE
        )
        assert gone.plug_in == plug_in
        assert not devices.present(plug_in)


async def test_a_disk_that_comes_during_the_second_look_is_not_told_as_removed(
    devices: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = devices.now()
    monkeypatch.setattr(devices, "now", lambda: before)
    events = devices.events()
    async with host.in_thread(host.exfat_disk(16)) as disk:
        plug_in = seen_disk(disk).plug_in
        await _next(events, lambda seen: seen.plug_in == plug_in)
        await devices._look_at_everything()
        told = [seen.action for seen in devices._pending if seen.plug_in == plug_in]
        assert DeviceAction.REMOVE not in told
        assert devices.present(plug_in)


async def test_a_plug_in_is_present_until_it_is_pulled_and_the_next_is_another(devices: Counting) -> None:
    events = devices.events()
    async with host.in_thread(host.exfat_disk(16)) as disk:
        first = seen_disk(disk).plug_in
        await _next(events, lambda seen: seen.plug_in == first)
        still_there = devices.presence(first.device_number)
        assert devices.present(first)
        assert still_there()
        await asyncio.to_thread(disk.detach)
        assert not devices.present(first)
        assert not still_there()
        await asyncio.to_thread(disk.attach)
        second = seen_disk(disk).plug_in
        assert second != first
        assert not devices.present(first)
        assert devices.present(second)
