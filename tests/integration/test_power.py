"""UPower's side of mains and battery, on a private bus with a stand-in of the real signatures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.adapters.bus import Bus, typed
from immich_usb_backup.adapters.power import UPOWER, UPOWER_PATH, MachinePower
from immich_usb_backup.errors import BusCallFailed
from tests.support import host
from tests.support.real_disks import connected
from tests.support.serving import ServedMethod, serve

PROPERTIES = "org.freedesktop.DBus.Properties"
HANGS_AFTER = 20.0

pytestmark = pytest.mark.skipif(host.find_program("dbus-daemon") is None, reason="there is no dbus-daemon")


@pytest.fixture(scope="module")
def bus() -> Iterator[host.Bus]:
    with host.system_bus(private=True) as bus:
        yield bus


class UPower:
    """OnBattery (b) of org.freedesktop.UPower, with the signal that the real one sends."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.battery: Any = False

    async def start(self) -> None:
        """Own the name."""
        serve(self._bus, UPOWER_PATH, PROPERTIES, {"Get": ServedMethod("ss", "v", self._get)})
        await self._bus.request_name(UPOWER)

    def say(self, *, battery: bool, path: str = UPOWER_PATH) -> None:
        """It changes."""
        self.battery = battery
        body = [UPOWER, {"OnBattery": typed("b", battery)}, []]
        self._bus.emit(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    async def _get(self, interface: str, name: str) -> Sequence[Any]:
        if (interface, name) != (UPOWER, "OnBattery"):
            raise BusCallFailed("org.freedesktop.DBus.Error.InvalidArgs", "No such property")
        return [typed("b" if isinstance(self.battery, bool) else "s", self.battery)]


@asynccontextmanager
async def upower(bus: host.Bus) -> AsyncIterator[UPower]:
    async with connected(bus) as connection:
        stand_in = UPower(connection)
        await stand_in.start()
        yield stand_in


def on_its_battery(folder: Path) -> Path:
    """A tree of a machine that lives on its battery."""
    (folder / "BAT0").mkdir()
    (folder / "BAT0/type").write_text("Battery\n")
    (folder / "BAT0/status").write_text("Discharging\n")
    return folder


async def test_upower_is_believed(bus: host.Bus, tmp_path: Path) -> None:
    async with asyncio.timeout(HANGS_AFTER), upower(bus) as stand_in, connected(bus) as client:
        power = MachinePower(client, supplies=on_its_battery(tmp_path))
        assert await power.on_battery() is False
        stand_in.battery = True
        assert await power.on_battery() is True


async def test_a_change_is_heard_of(bus: host.Bus, tmp_path: Path) -> None:
    async with asyncio.timeout(HANGS_AFTER), upower(bus) as stand_in, connected(bus) as client:
        power = MachinePower(client, supplies=tmp_path)
        stand_in.battery = True
        await power.changed(seconds=0)  # from here on it listens
        assert await power.on_battery() is True
        waiting = asyncio.ensure_future(power.changed(seconds=3600))
        stand_in.say(battery=True, path="/org/freedesktop/UPower/devices/DisplayDevice")
        stand_in.say(battery=False)
        await waiting
        assert await power.on_battery() is False


async def test_news_between_the_look_and_the_wait_is_not_lost(bus: host.Bus, tmp_path: Path) -> None:
    async with asyncio.timeout(HANGS_AFTER), upower(bus) as stand_in, connected(bus) as client:
        power = MachinePower(client, supplies=tmp_path)
        await power.changed(seconds=0)
        await power.on_battery()
        stand_in.say(battery=True)
        await client.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId")
        await power.changed(seconds=3600)
        assert await power.on_battery() is True


async def test_without_upower_the_kernel_is_asked(bus: host.Bus, tmp_path: Path) -> None:
    async with asyncio.timeout(HANGS_AFTER), connected(bus) as client:
        assert await MachinePower(client, supplies=tmp_path).on_battery() is False
        power = MachinePower(client, supplies=on_its_battery(tmp_path))
        assert await power.on_battery() is True
        await power.changed(seconds=0)


async def test_a_upower_that_answers_nonsense_is_not_believed(bus: host.Bus, tmp_path: Path) -> None:
    async with asyncio.timeout(HANGS_AFTER), upower(bus) as stand_in, connected(bus) as client:
        stand_in.battery = "yes"
        assert await MachinePower(client, supplies=on_its_battery(tmp_path)).on_battery() is True


async def test_a_bus_that_is_gone_leaves_the_kernel(bus: host.Bus, tmp_path: Path) -> None:
    async with asyncio.timeout(HANGS_AFTER):
        async with connected(bus) as client:
            power = MachinePower(client, supplies=on_its_battery(tmp_path))
        assert await power.on_battery() is True
        await power.changed(seconds=0)
