"""Whether the user of this process sits at the machine, from logind."""

from __future__ import annotations

from collections.abc import Callable

from immich_usb_backup.adapters.bus import Bus, Signal
from immich_usb_backup.adapters.owner import NameOwner
from immich_usb_backup.errors import BusCallFailed, DeadlineMissed

_LOGIN = "org.freedesktop.login1"
_PATH = "/org/freedesktop/login1"
_MANAGER = f"{_LOGIN}.Manager"
_SESSION = f"{_LOGIN}.Session"
_USER = f"{_LOGIN}.User"
_PROPERTIES = "org.freedesktop.DBus.Properties"


class LoginSeat:
    """Implements ``agent.ports.Seat``. A unit of the user's manager is in no session itself, and what its environment says
    of one may be of an earlier login: what counts is the session that logind takes for this user's display."""

    def __init__(self, bus: Bus, uid: int) -> None:
        self._bus = bus
        self._uid = uid

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Begin to listen: for another session in front, and for a new logind. Raises ``BusLost``, ``DeadlineMissed``,
        ``BusCallFailed``."""
        owner = NameOwner(self._bus, _LOGIN, on_change)

        def changed(signal: Signal) -> None:
            if owner.sent(signal):
                on_change()

        for interface in (_SESSION, _USER):
            await self._bus.subscribe(
                changed, interface=_PROPERTIES, member="PropertiesChanged", sender=_LOGIN, arg0=interface
            )
        await owner.watch()

    async def in_front(self) -> bool:
        """Whether the session is the active one of its seat. True where logind does not know of any. Raises ``BusLost``."""
        try:
            return bool(await self._get(await self._session_path(), _SESSION, "Active"))
        except (BusCallFailed, DeadlineMissed):
            return True

    async def _session_path(self) -> str:
        (user,) = await self._bus.call(_LOGIN, _PATH, _MANAGER, "GetUser", "u", [self._uid])
        display = await self._get(str(user), _USER, "Display")
        return str(display[1]) if isinstance(display, list) and len(display) == 2 else "/"

    async def _get(self, path: str, interface: str, name: str) -> object:
        (value,) = await self._bus.call(_LOGIN, path, _PROPERTIES, "Get", "ss", [interface, name])
        return value
