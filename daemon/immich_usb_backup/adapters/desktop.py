"""The desktop's notifications: org.freedesktop.Notifications on the session bus."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from immich_usb_backup.adapters.bus import Bus, Signal, typed
from immich_usb_backup.adapters.owner import NameOwner
from immich_usb_backup.policy.note_words import LABELS
from immich_usb_backup.policy.notes import Note

NAME = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"
APPLICATION = "Immich USB backup"
DESKTOP_ENTRY = "immich-usb-backup"

_NEVER = 0
"""As ``expire_timeout``: it stays until somebody takes it away."""
_CALL_SECONDS = 10.0
_NOTHING_BUT_A_BAR = {"Xfce Notify Daemon"}
"""Servers that show a note with a value as they show the volume: the bar, and neither its text nor its buttons."""


class Desktop:
    """Implements ``agent.Screen``. Ids belong to one life of the notification server: ``on_server`` ends them all."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._capabilities: frozenset[str] | None = None
        self._server = ""
        self._owner: NameOwner | None = None

    async def watch(
        self,
        on_closed: Callable[[int], None],
        on_server: Callable[[bool], None],
        on_action: Callable[[int, str], None],
    ) -> bool:
        """Begin to listen; returns whether there is a server. ``on_closed`` gets ids, ``on_server`` whether there is a
        (new) server now, ``on_action`` an id and the button that was pressed. Raises ``BusLost``, ``DeadlineMissed``,
        ``BusCallFailed``.
        """

        def changed() -> None:
            self._capabilities, self._server = None, ""
            on_server(bool(owner.owner))

        def closed(signal: Signal) -> None:
            if owner.sent(signal) and signal.body and isinstance(signal.body[0], int):
                on_closed(signal.body[0])

        def invoked(signal: Signal) -> None:
            if owner.sent(signal) and [type(part) for part in signal.body] == [int, str]:
                on_action(*signal.body)

        owner = self._owner = NameOwner(self._bus, NAME, changed)
        await self._bus.subscribe(closed, interface=NAME, member="NotificationClosed", sender=NAME)
        await self._bus.subscribe(invoked, interface=NAME, member="ActionInvoked", sender=NAME)
        await owner.watch()
        return bool(owner.owner)

    async def show(self, note: Note, *, replaces: int) -> int:
        """Show a note in the place of another (0: none); returns its id. Raises ``BusCallFailed``, ``BusLost``,
        ``DeadlineMissed``."""
        body = html.escape(note.body, quote=False) if await self._has("body-markup") else note.body
        buttons = _buttons(note) if await self._has("actions") else []
        arguments = [APPLICATION, replaces, note.icon, note.summary, body, buttons, await self._hints(note), _NEVER]
        (shown,) = await self._call("Notify", "susssasa{sv}i", arguments)
        return int(shown)

    async def withdraw(self, note_id: int) -> None:
        """Take a note away. Raises ``BusCallFailed`` where it is gone already, ``BusLost``, ``DeadlineMissed``."""
        await self._call("CloseNotification", "u", [note_id])

    async def _has(self, capability: str) -> bool:
        if self._capabilities is None:
            (names,) = await self._call("GetCapabilities", "", [])
            self._capabilities = frozenset(names)
        return capability in self._capabilities

    async def _hints(self, note: Note) -> dict[str, Any]:
        hints = _hints(note)
        if note.percent is not None and await self._server_name() not in _NOTHING_BUT_A_BAR:
            hints["value"] = typed("i", note.percent)
        return hints

    async def _server_name(self) -> str:
        if not self._server:
            self._server, *_ = await self._call("GetServerInformation", "", [])
        return self._server

    async def _call(self, member: str, signature: str, arguments: list[Any]) -> tuple[Any, ...]:
        return await self._bus.call(NAME, PATH, NAME, member, signature, arguments, timeout=_CALL_SECONDS)


def _buttons(note: Note) -> list[str]:
    return [word for action in note.actions for word in (action.value, LABELS[action])]


def _hints(note: Note) -> dict[str, Any]:
    return {
        "urgency": typed("y", note.urgency.value),
        "category": typed("s", note.category),
        "desktop-entry": typed("s", DESKTOP_ENTRY),
        "resident": typed("b", note.resident),
        "transient": typed("b", False),  # noqa: FBT003
    }
