"""A stand-in for systemd on a bus, with one unit of ours that is asked for its answer. It holds to what the real one does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dbus_next import Variant

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.errors import BusCallFailed
from tests.support.serving import ServedMethod, serve

NAME, PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
MANAGER, UNIT, SERVICE = f"{NAME}.Manager", f"{NAME}.Unit", f"{NAME}.Service"
UNIT_PATH = f"{PATH}/unit/it"


@dataclass
class Systemd:
    """One unit that stays active after its end. ``answer``: its exit code and status line; None: it goes on for ever."""

    answer: tuple[int, str] | None = (0, "clean: 1234-ABCD: unmounted properly")
    result: str = "success"
    fails: bool = False
    refuses: str = ""
    signals: bool = True
    state: str = "inactive"
    job: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    looks: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    bus: Bus | None = None
    _old: tuple[int, str] = (0, "")

    async def start(self) -> None:
        self.bus = await Bus.system()
        methods = {
            "StartUnit": ServedMethod("ss", "o", self._start),
            "StopUnit": ServedMethod("ss", "o", self._stop),
            "LoadUnit": ServedMethod("s", "o", self._load),
        }
        serve(self.bus, PATH, MANAGER, methods)
        serve(self.bus, UNIT_PATH, "org.freedesktop.DBus.Properties", {"GetAll": ServedMethod("s", "a{sv}", self._all)})
        await self.bus.request_name(NAME)

    def end(self, answer: tuple[int, str]) -> None:
        """The process of the unit ends."""
        self.answer = answer
        self._finish()

    async def _load(self, unit: str) -> Sequence[Any]:
        return [UNIT_PATH]

    async def _start(self, unit: str, mode: str) -> Sequence[Any]:
        self.asked.append(("start", unit))
        if self.refuses:
            raise BusCallFailed(self.refuses, "no")
        if self.state != "active":  # else a start changes nothing
            self.state, self.job = "activating", 7
            if self.answer is not None:
                asyncio.get_running_loop().call_soon(self._finish)
        self.started.set()
        return [f"{PATH}/job/7"]

    async def _stop(self, unit: str, mode: str) -> Sequence[Any]:
        self.asked.append(("stop", unit))
        self.state, self.job = "inactive", 0
        return [f"{PATH}/job/8"]

    def _finish(self) -> None:
        if self.started.is_set() and self.answer is not None:
            self.job, self._old = 0, self.answer
            self.state = "failed" if self.fails else "active"
            if self.signals and self.bus is not None:
                self.bus.emit(PATH, MANAGER, "JobRemoved", "uoss", [7, f"{PATH}/job/7", "x.service", "done"])

    async def _all(self, interface: str) -> Sequence[Any]:
        if interface == UNIT:
            self.looks += 1
            job = Variant("(uo)", [self.job, f"{PATH}/job/{self.job}" if self.job else "/"])
            return [{"ActiveState": Variant("s", self.state), "Job": job}]
        status, text = self._old
        return [
            {
                "ExecMainStatus": Variant("i", status),
                "StatusText": Variant("s", text),
                "Result": Variant("s", self.result),
            }
        ]
