"""What an agent asks the daemon for on the system bus, in its user's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.policy.note_words import Action

_MEMBERS = {Action.CANCEL: dbus_names.CANCEL, Action.APPROVE: dbus_names.APPROVE, Action.EJECT: dbus_names.EJECT}
_PASSWORD_SECONDS = 330.0
"""A little longer than the service waits for whoever has left a dialog for a password open: its words are the better ones."""
_EJECT_SECONDS = 1800.0 + _PASSWORD_SECONDS
"""A file that was found bad is copied again before the disk is let go."""
_RUNS = 50
_PROPERTIES = "org.freedesktop.DBus.Properties"


class DaemonCalls:
    """Implements ``agent.ports.Service``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def ask(self, action: Action, disk: str) -> object:
        """Have something done to a disk (its UUID); the user may be asked for a password. Raises ``BusCallFailed`` where it
        is refused, ``BusLost``, ``DeadlineMissed``."""
        seconds = _EJECT_SECONDS if action is Action.EJECT else _PASSWORD_SECONDS
        place = (dbus_names.BUS_NAME, dbus_names.OBJECT_PATH, dbus_names.MANAGER)
        reply = await self._bus.call(*place, _MEMBERS[action], "s", [disk], timeout=seconds, interactive=True)
        return reply[0] if reply else None

    async def history(self) -> Sequence[Mapping[str, Any]]:
        """The newest runs of all disks. Raises ``BusCallFailed``, ``BusLost``, ``DeadlineMissed``."""
        return await self._list(dbus_names.GET_HISTORY, "sub", ["", _RUNS, False])

    async def disks(self) -> Sequence[Mapping[str, Any]]:
        """The disks that are known or plugged in. Raises ``BusCallFailed``, ``BusLost``, ``DeadlineMissed``."""
        return await self._list(dbus_names.GET_DISKS, "", [])

    async def details(self, run_id: str) -> Mapping[str, Any]:
        """The properties of a run's object. Raises ``BusCallFailed`` where there is none, ``BusLost``, ``DeadlineMissed``."""
        place = (dbus_names.BUS_NAME, dbus_names.path_of(dbus_names.RUNS, run_id), _PROPERTIES)
        (values,) = await self._bus.call(*place, "GetAll", "s", [dbus_names.RUN])
        return values if isinstance(values, dict) else {}

    async def _list(self, member: str, signature: str, arguments: list[Any]) -> Sequence[Mapping[str, Any]]:
        place = (dbus_names.BUS_NAME, dbus_names.OBJECT_PATH, dbus_names.MANAGER)
        (found,) = await self._bus.call(*place, member, signature, arguments)
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
