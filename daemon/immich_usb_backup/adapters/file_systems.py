"""Checking and repairing by way of systemd: a unit of its own for each, which may open that one device.

The daemon may not open block devices. It may start and stop these units (the polkit rule says so), and reads the answer from
the unit, see ``units``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.units import Units
from immich_usb_backup.errors import BusCallFailed, DiskGone
from immich_usb_backup.model import Health, Partition
from immich_usb_backup.policy.file_system import EXIT_CODES
from immich_usb_backup.policy.text import harmless

CHECK_SECONDS = 2 * 3600.0
"""A check reads each folder once (measured): 65,000 folders on a hard disk at 10 ms are 11 minutes. The units have a
deadline of their own, a little later."""

_NODE = re.compile(r"/dev/([a-zA-Z0-9-]+)")
_HEALTH = {code: health for health, code in EXIT_CODES.items()}


class SystemdFileSystems:
    """The ``FileSystems`` port on the real systemd."""

    def __init__(self, bus: Bus, *, seconds: float = CHECK_SECONDS) -> None:
        self._units = Units(bus)
        self._seconds = seconds

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
            health, said = _answer(await self._units.run(unit, seconds=self._seconds))
        except BusCallFailed as error:
            health, said = Health.UNKNOWN, f"systemd does not run {unit}: {harmless(error.message)}"
        _refuse_another(partition)
        return _about(partition, health, said)


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
