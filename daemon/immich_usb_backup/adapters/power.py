"""Whether the machine runs on battery: UPower knows it, of a UPS too; else the kernel's power supplies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from immich_usb_backup.adapters.bus import Bus, Signal
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.errors import BackupError, BusCallFailed, BusLost, DeadlineMissed
from immich_usb_backup.policy.power import Supply, on_battery

UPOWER, UPOWER_PATH = "org.freedesktop.UPower", "/org/freedesktop/UPower"
SUPPLIES = Path("/sys/class/power_supply")

_PROPERTIES = "org.freedesktop.DBus.Properties"
_ANSWER_SECONDS = 5.0
_LONGEST = 64


class MachinePower:
    """The ``Power`` port."""

    def __init__(self, bus: Bus, *, supplies: Path = SUPPLIES) -> None:
        self._bus = bus
        self._supplies = supplies
        self._news = asyncio.Event()
        self._listens = False

    async def on_battery(self) -> bool:
        """As UPower has it; where there is none, as the kernel has it. Where neither knows, it is mains."""
        self._news.clear()
        try:
            body = [UPOWER, "OnBattery"]
            (answer,) = await self._bus.call(
                UPOWER, UPOWER_PATH, _PROPERTIES, "Get", "ss", body, timeout=_ANSWER_SECONDS
            )
        except (BusCallFailed, BusLost, DeadlineMissed):
            return await self._as_the_kernel_has_it()
        return answer if isinstance(answer, bool) else await self._as_the_kernel_has_it()

    async def changed(self, *, seconds: float) -> None:
        """Return when UPower says that something changed since the last look, or after ``seconds``."""
        await self._listen()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    async def _listen(self) -> None:
        """Without the bus there are only the looks now and then."""
        if self._listens:
            return
        try:
            await self._bus.subscribe(
                self._heard, interface=_PROPERTIES, member="PropertiesChanged", sender=UPOWER, arg0=UPOWER
            )
        except BackupError:
            return
        self._listens = True

    def _heard(self, signal: Signal) -> None:
        """Whoever sent it: it leads to a look, and to nothing else."""
        if signal.path == UPOWER_PATH:
            self._news.set()

    async def _as_the_kernel_has_it(self) -> bool:
        try:
            return await in_thread(
                lambda _: on_battery(_read(self._supplies)),
                what="Looking at the power supplies",
                stall_seconds=_ANSWER_SECONDS,
            )
        except DeadlineMissed:
            return False


def _read(folder: Path) -> Iterator[Supply]:
    """Each supply; one that goes away meanwhile has no values."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return
    for path in found:
        values = {name: _value(path / name) for name in ("online", "status", "scope")}
        yield Supply(kind=_value(path / "type"), **values)


def _value(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST).decode("ascii", "replace").strip()
    except OSError:
        return ""
