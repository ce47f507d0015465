"""Asks the daemon for what this desktop has not shown yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from immich_usb_backup.agent.ports import Seen, Service
from immich_usb_backup.errors import BusCallFailed
from immich_usb_backup.model import Outcome
from immich_usb_backup.policy import catching_up
from immich_usb_backup.ports import Clock


class CatchUp:
    """``on``: the outcomes that are told of at all."""

    def __init__(self, service: Service, seen: Seen, clock: Clock, on: Collection[Outcome]) -> None:
        self._service = service
        self._seen = seen
        self._clock = clock
        self._on = on

    async def missed(self) -> tuple[Mapping[str, Any], ...]:
        """What to show, as ``RunFinished`` would have told it. Raises ``BusLost``, ``BusCallFailed``, ``DeadlineMissed``."""
        history, disks = await self._service.history(), await self._service.disks()
        now, seen = self._clock.now(), await self._seen.newest()
        found = catching_up.missed(history, disks, seen=seen, wanted=self._on, now=now)
        return tuple([await self._with_details(values) for values in found])

    async def _with_details(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The history's line will do where its object is gone: only the newest runs have one."""
        try:
            details = await self._service.details(values["run"])
        except BusCallFailed:
            return values
        found = {"body": details.get("Body"), "todo": details.get("Todo")}
        return {**values, **{key: value for key, value in found.items() if value and isinstance(value, str)}}
