"""The daemon as an agent sees it: its signals on the system bus, believed only from the owner of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from immich_usb_backup.adapters.bus import Bus, Signal
from immich_usb_backup.adapters.owner import NameOwner
from immich_usb_backup.dbus_names import BUS_NAME, GET_STATE, MANAGER, OBJECT_PATH


class ManagerOnBus:
    """Implements ``agent.Manager``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._owner: NameOwner | None = None

    async def watch(
        self, on_signal: Callable[[str, Mapping[str, Any]], None], on_owner: Callable[[bool], None]
    ) -> bool:
        """Begin to listen; returns whether the daemon is there. Raises ``BusLost``, ``DeadlineMissed``, ``BusCallFailed``."""
        owner = self._owner = NameOwner(self._bus, BUS_NAME, lambda: on_owner(bool(owner.owner)))

        def heard(signal: Signal) -> None:
            if owner.sent(signal) and signal.path == OBJECT_PATH and _is_values(signal.body):
                on_signal(signal.member, signal.body[0])

        await self._bus.subscribe(heard, interface=MANAGER, sender=BUS_NAME)
        await owner.watch()
        return bool(owner.owner)

    async def state(self) -> Mapping[str, Any]:
        """What the daemon does now. Raises ``BusCallFailed`` where it is not there, ``BusLost``, ``DeadlineMissed``."""
        reply = await self._bus.call(BUS_NAME, OBJECT_PATH, MANAGER, GET_STATE)
        return reply[0] if _is_values(reply) else {}


def _is_values(body: tuple[Any, ...]) -> bool:
    return len(body) == 1 and isinstance(body[0], dict)
