"""A private system-like bus with a stand-in for the daemon, and a private session bus with a desktop that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbus_next import BusType, Message, MessageType
from dbus_next.aio import MessageBus
from dbus_next.constants import NameFlag

from immich_usb_backup.adapters.bus import Bus, ServedMethod, unpack, variants
from immich_usb_backup.dbus_names import BUS_NAME, GET_STATE, MANAGER, OBJECT_PATH

NOTIFICATIONS = "org.freedesktop.Notifications"
NOTIFICATIONS_PATH = "/org/freedesktop/Notifications"


async def until(met: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(seconds):
        while not met():
            await asyncio.sleep(0.01)


async def hang_up(connection: MessageBus) -> None:
    """End a connection for good: dbus-next only shuts its socket down."""
    connection.disconnect()
    await connection.wait_for_disconnect()
    connection._sock.close()


@dataclass(frozen=True)
class Shown:
    """One call of Notify, its variants unpacked; ``signatures`` are those of the hints."""

    replaces: int
    summary: str
    body: str
    hints: Mapping[str, Any]
    signatures: Mapping[str, str]
    timeout: int


@dataclass
class RecordingDesktop:
    """A notification server. ``visible`` is what a person sees, ``calls`` all that was asked for."""

    capabilities: Sequence[str] = ("body", "body-markup", "persistence")
    first_id: int = 1
    calls: list[Shown] = field(default_factory=list)
    visible: dict[int, Shown] = field(default_factory=dict)
    bus: MessageBus | None = None

    async def start(self) -> None:
        """Own the name."""
        self.bus = await MessageBus(bus_type=BusType.SESSION).connect()
        self.bus.add_message_handler(self._answer)
        await self.bus.request_name(NOTIFICATIONS, NameFlag.REPLACE_EXISTING | NameFlag.ALLOW_REPLACEMENT)

    async def stop(self) -> None:
        """Go away as a crashed one does."""
        if self.bus is not None:
            await hang_up(self.bus)
            self.bus = None
            self.visible.clear()

    def dismiss(self, note_id: int, reason: int = 2) -> None:
        """As a person closes it."""
        del self.visible[note_id]
        self._say_closed(note_id, reason)

    @property
    def only(self) -> Shown:
        """What is visible, if it is one."""
        (shown,) = self.visible.values()
        return shown

    def summaries(self) -> list[str]:
        """The headlines of what is visible."""
        return sorted(shown.summary for shown in self.visible.values())

    def _say_closed(self, note_id: int, reason: int) -> None:
        assert self.bus is not None
        body = [note_id, reason]
        self.bus.send(Message.new_signal(NOTIFICATIONS_PATH, NOTIFICATIONS, "NotificationClosed", "uu", body))

    def _answer(self, message: Message) -> Message | None:
        if message.message_type is not MessageType.METHOD_CALL or message.interface != NOTIFICATIONS:
            return None
        if message.member == "GetCapabilities":
            return Message.new_method_return(message, "as", [list(self.capabilities)])
        if message.member == "Notify":
            return Message.new_method_return(message, "u", [self._notify(message.body)])
        (note_id,) = message.body
        if note_id not in self.visible:
            return Message.new_error(message, f"{NOTIFICATIONS}.Error.InvalidId", "no such notification")
        self.dismiss(note_id, reason=3)
        return Message.new_method_return(message)

    def _notify(self, body: Sequence[Any]) -> int:
        _, replaces, _, summary, text, _, hints, timeout = body
        signatures = {key: hint.signature for key, hint in hints.items()}
        shown = Shown(replaces, summary, text, unpack(hints), signatures, timeout)
        self.calls.append(shown)
        note_id = replaces if replaces in self.visible else self.first_id + len(self.calls) - 1
        self.visible[note_id] = shown
        return int(note_id)


class StandIn:
    """The daemon's side of the contract in ``dbus_names``."""

    def __init__(self, state: Mapping[str, Any] | None = None, *, name: str = BUS_NAME) -> None:
        self.state: Mapping[str, Any] = state or {"running": False}
        self.name = name
        self.bus: Bus | None = None

    async def start(self) -> None:
        """Own the name and answer."""
        self.bus = await Bus.system()
        self.bus.serve(OBJECT_PATH, MANAGER, {GET_STATE: ServedMethod("", "a{sv}", self._get_state)})
        await self.bus.request_name(self.name)

    async def stop(self) -> None:
        """Be gone from the bus, as after SIGKILL."""
        if self.bus is not None:
            await self.bus.close()
            self.bus = None

    def emit(self, member: str, **values: Any) -> None:
        """Send a signal."""
        assert self.bus is not None
        self.bus.emit(OBJECT_PATH, MANAGER, member, "a{sv}", [variants(values)])

    async def _get_state(self) -> Sequence[Any]:
        return [variants(self.state)]
