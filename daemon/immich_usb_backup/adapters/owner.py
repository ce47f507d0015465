"""Who owns a well-known name on a bus, kept up to date.

A match rule keeps other senders' broadcasts away, but anybody may send a signal to our connection alone, and such a
one passes no match rule. So what is believed is checked against the owner's unique name.
"""

from __future__ import annotations

from collections.abc import Callable

from immich_usb_backup.adapters.bus import Bus, Signal
from immich_usb_backup.errors import BusCallFailed

_DBUS = "org.freedesktop.DBus"
_DBUS_PATH = "/org/freedesktop/DBus"


class NameOwner:
    """The owner of ``name``; ``changed`` is called after each change."""

    def __init__(self, bus: Bus, name: str, changed: Callable[[], None]) -> None:
        self._bus = bus
        self._name = name
        self._changed = changed
        self._heard = False
        self.owner = ""

    async def watch(self) -> None:
        """Begin. Raises ``BusLost``, ``DeadlineMissed``, ``BusCallFailed``."""
        await self._bus.subscribe(
            self._on_change, interface=_DBUS, member="NameOwnerChanged", sender=_DBUS, arg0=self._name
        )
        try:
            (owner,) = await self._bus.call(_DBUS, _DBUS_PATH, _DBUS, "GetNameOwner", "s", [self._name])
        except BusCallFailed as error:
            if error.name != f"{_DBUS}.Error.NameHasNoOwner":
                raise
        else:
            self.owner = self.owner if self._heard else owner  # what was heard meanwhile is newer

    def sent(self, signal: Signal) -> bool:
        """Whether the owner sent this."""
        return bool(self.owner) and signal.sender == self.owner

    def _on_change(self, signal: Signal) -> None:
        if signal.sender == _DBUS and len(signal.body) == 3 and signal.body[0] == self._name:
            self._heard = True
            self.owner = signal.body[2]
            self._changed()
