"""Fresh database dumps by way of systemd: a unit of its own makes them, which has what the daemon has not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.units import Units
from immich_usb_backup.errors import BusCallFailed
from immich_usb_backup.policy.text import harmless

UNIT = "immich-usb-backup-dump.service"
FAILED = "failed: "
"""How the unit's status line begins when it made no dump."""


class SystemdDumpMaker:
    """The ``DumpMaker`` port on the real systemd. ``folder`` is the unit's state directory."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self._units = Units(bus)
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._folder

    async def make(self, *, seconds: float) -> str | None:
        """Start the unit and wait for its end. None, or why there is no dump. Raises ``BusLost``, ``DeadlineMissed``."""
        try:
            return _answer(await self._units.run(UNIT, seconds=seconds))
        except BusCallFailed as error:
            return f"systemd does not run {UNIT}: {harmless(error.message)}"


def _answer(unit: Mapping[str, Any]) -> str | None:
    status, said = unit["ExecMainStatus"], harmless(str(unit["StatusText"]))
    if unit["ActiveState"] == "active" and status == 0:
        return None
    if said.startswith(FAILED):
        return said.removeprefix(FAILED)
    return f"{UNIT} ended with {harmless(str(unit['Result']))} ({status})"
