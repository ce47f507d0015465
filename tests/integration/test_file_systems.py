"""Checks by way of systemd, on a private bus with a stand-in for systemd that holds to what the real one does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.file_systems import SystemdFileSystems
from immich_usb_backup.errors import BusLost, DeadlineMissed, DiskGone
from immich_usb_backup.model import Health, Partition
from tests.integration.buses import until
from tests.integration.fake_systemd import MANAGER, NAME, PATH, Systemd
from tests.support import host

SECONDS = 20.0

pytestmark = pytest.mark.skipif(host.find_program("dbus-daemon") is None, reason="there is no dbus-daemon")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with host.system_bus(private=True) as bus:
        yield bus.address


@pytest.fixture
async def systemd(address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Systemd]:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    systemd = Systemd()
    await systemd.start()
    yield systemd
    assert systemd.bus is not None
    with suppress(BusLost):
        await systemd.bus.close()


@pytest.fixture
async def bus(address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    bus = await Bus.system()
    async with asyncio.timeout(SECONDS):
        yield bus
    await bus.close()


@pytest.fixture
def partition() -> Partition:
    """/dev/null stands for the device: it has a number, and it is always there."""
    return Partition(
        block_path="/org/freedesktop/UDisks2/block_devices/null",
        drive_path=None,
        device_node="/dev/null",
        device_number=os.stat("/dev/null").st_rdev,
        file_system="exfat",
        uuid="1234-ABCD",
        label="Blue",
        connection_bus="usb",
        size=1,
        read_only=False,
    )


CHECK = "immich-usb-backup-check@null.service"
REPAIR = "immich-usb-backup-repair@null.service"


@pytest.mark.parametrize(
    ("code", "line", "expected"),
    [
        (0, "clean: 1234-ABCD: unmounted properly", (Health.CLEAN, "unmounted properly")),
        (10, "dirty: 1234-abcd: no errors", (Health.DIRTY, "no errors")),
        (12, "damaged: 1234-ABCD: 1 error: \x1b[2J", (Health.DAMAGED, "1 error: \\u001b[2J")),
        (13, "unknown: it is in use", (Health.UNKNOWN, "it is in use")),
    ],
)
async def test_the_answer_is_what_the_unit_said(
    systemd: Systemd, bus: Bus, partition: Partition, code: int, line: str, expected: tuple[Health, str]
) -> None:
    systemd.answer = (code, line)
    assert await SystemdFileSystems(bus).check(partition) == expected
    assert systemd.asked == [("stop", CHECK), ("start", CHECK), ("stop", CHECK)]
    assert systemd.state == "inactive"


async def test_a_repair_is_another_unit(systemd: Systemd, bus: Bus, partition: Partition) -> None:
    systemd.answer = (11, "repaired: 1234-ABCD: 2 errors")
    assert await SystemdFileSystems(bus).repair(partition) == (Health.REPAIRED, "2 errors")
    assert {unit for _, unit in systemd.asked} == {REPAIR}


async def test_an_answer_that_a_crashed_daemon_left_is_not_believed(
    systemd: Systemd, bus: Bus, partition: Partition
) -> None:
    systemd.state, systemd._old = "active", (0, "clean: 1234-ABCD: unmounted properly")
    systemd.answer = (12, "damaged: 1234-ABCD: 1 error")
    assert (await SystemdFileSystems(bus).check(partition))[0] is Health.DAMAGED


@pytest.mark.parametrize(
    ("state", "job"), [("inactive", 7), ("activating", 7), ("deactivating", 0)], ids=["queued", "runs", "fails"]
)
async def test_one_waits_for_the_end(systemd: Systemd, bus: Bus, partition: Partition, state: str, job: int) -> None:
    systemd.answer = None
    check = asyncio.ensure_future(SystemdFileSystems(bus).check(partition))
    await systemd.started.wait()
    systemd.state, systemd.job = state, job
    for _ in range(2):  # a stranger can send a signal to our connection; it wakes us, and is not believed
        looks = systemd.looks
        assert systemd.bus is not None
        systemd.bus.emit(PATH, MANAGER, "JobRemoved", "uoss", [7, f"{PATH}/job/7", CHECK, "done"])
        await until(lambda seen=looks: systemd.looks > seen)  # type: ignore[misc]
    assert not check.done()
    systemd.end((10, "dirty: 1234-ABCD: no errors"))
    assert (await check)[0] is Health.DIRTY


async def test_cancelled_it_stops_the_unit(systemd: Systemd, bus: Bus, partition: Partition) -> None:
    systemd.answer = None
    check = asyncio.ensure_future(SystemdFileSystems(bus).check(partition))
    await systemd.started.wait()
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    assert systemd.asked[-1] == ("stop", CHECK)
    assert systemd.state == "inactive"


async def test_a_check_without_an_end_misses_its_deadline_and_is_stopped(
    systemd: Systemd, bus: Bus, partition: Partition
) -> None:
    systemd.answer = None
    with pytest.raises(DeadlineMissed):
        await SystemdFileSystems(bus, seconds=0.0).check(partition)
    assert systemd.state == "inactive"


@pytest.mark.parametrize(
    ("code", "result"), [(216, "exit-code"), (15, "timeout"), (70, "exit-code"), (9, "oom-kill"), (10, "timeout")]
)
async def test_a_unit_that_failed_tells_nothing(
    systemd: Systemd, bus: Bus, partition: Partition, code: int, result: str
) -> None:
    systemd.answer, systemd.result, systemd.fails = (code, ""), result, True
    health, said = await SystemdFileSystems(bus).check(partition)
    assert health is Health.UNKNOWN
    assert result in said


@pytest.mark.parametrize(
    "error",
    [f"{NAME}.NoSuchUnit", "org.freedesktop.DBus.Error.AccessDenied"],
)
async def test_a_systemd_that_refuses_is_no_error(systemd: Systemd, bus: Bus, partition: Partition, error: str) -> None:
    systemd.refuses = error
    health, said = await SystemdFileSystems(bus).check(partition)
    assert health is Health.UNKNOWN
    assert CHECK in said


async def test_without_systemd_it_is_unknown(bus: Bus, partition: Partition) -> None:
    assert (await SystemdFileSystems(bus).check(partition))[0] is Health.UNKNOWN


async def test_the_answer_about_another_file_system_is_not_ours(
    systemd: Systemd, bus: Bus, partition: Partition
) -> None:
    systemd.answer = (0, "clean: FFFF-FFFF: unmounted properly")
    with pytest.raises(DiskGone):
        await SystemdFileSystems(bus).check(partition)


async def test_a_disk_that_is_gone_is_not_asked_about(systemd: Systemd, bus: Bus, partition: Partition) -> None:
    for gone in (replace(partition, device_node="/dev/sdzzz9"), replace(partition, device_number=1)):
        with pytest.raises(DiskGone):
            await SystemdFileSystems(bus).check(gone)
    assert systemd.asked == []


@pytest.mark.parametrize("node", ["/dev/../etc/passwd", "/dev/a b", "/dev/mapper/x", "sda1", "/dev/", "/dev/x\n"])
async def test_only_devices_right_in_dev_have_units(
    systemd: Systemd, bus: Bus, partition: Partition, node: str
) -> None:
    assert (await SystemdFileSystems(bus).check(replace(partition, device_node=node)))[0] is Health.UNKNOWN
    assert systemd.asked == []


async def test_hyphens_are_written_as_systemd_does(
    systemd: Systemd, bus: Bus, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **rest: real("/dev/null" if path == "/dev/dm-0" else path, **rest))
    await SystemdFileSystems(bus).check(replace(partition, device_node="/dev/dm-0"))
    assert systemd.asked[0] == ("stop", "immich-usb-backup-check@dm\\x2d0.service")


async def test_a_lost_bus_is_said(systemd: Systemd, bus: Bus, partition: Partition, tmp_path: Path) -> None:
    systemd.answer = None
    check = asyncio.ensure_future(SystemdFileSystems(bus).check(partition))
    await systemd.started.wait()
    await bus.close()
    with pytest.raises(BusLost):
        await check
