"""A private system-like bus with a stand-in for the daemon, and a private session bus with a desktop that remembers."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbus_next import BusType, Message, MessageType
from dbus_next.aio import MessageBus
from dbus_next.constants import MessageFlag, NameFlag

from immich_usb_backup.adapters.bus import Bus, close_socket, typed, unpack, variants
from immich_usb_backup.dbus_names import (
    APPROVE,
    BUS_NAME,
    CANCEL,
    EJECT,
    GET_DISKS,
    GET_HISTORY,
    GET_STATE,
    MANAGER,
    OBJECT_PATH,
    RUN,
    RUNS,
    path_of,
)
from immich_usb_backup.errors import BusCallFailed
from tests.support.serving import ServedMethod, serve

NOTIFICATIONS = "org.freedesktop.Notifications"
NOTIFICATIONS_PATH = "/org/freedesktop/Notifications"
LOGIN, LOGIN_PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
PROPERTIES = "org.freedesktop.DBus.Properties"


async def until(met: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(seconds):
        while not met():
            await asyncio.sleep(0.01)


async def hang_up(connection: MessageBus) -> None:
    """End a connection for good: dbus-next only shuts its socket down."""
    connection.disconnect()
    await connection.wait_for_disconnect()
    close_socket(connection)


@dataclass(frozen=True)
class Shown:
    """One call of Notify, its variants unpacked; ``signatures`` are those of the hints."""

    replaces: int
    summary: str
    body: str
    hints: Mapping[str, Any]
    signatures: Mapping[str, str]
    timeout: int
    icon: str = ""
    actions: Sequence[str] = ()

    @property
    def buttons(self) -> list[str]:
        """What stands on them."""
        return list(self.actions[1::2])


@dataclass
class RecordingDesktop:
    """A notification server. ``visible`` is what a person sees, ``calls`` all that was asked for."""

    capabilities: Sequence[str] = ("actions", "body", "body-markup", "persistence")
    first_id: int = 1
    name: str = "a desktop"
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

    def press(self, label: str) -> None:
        """As a person presses a button; a note that is not resident is closed by that."""
        (note_id,) = (key for key, shown in self.visible.items() if label in shown.buttons)
        shown = self.visible[note_id]
        self.invoke(note_id, shown.actions[2 * shown.buttons.index(label)])
        if not shown.hints["resident"]:
            self.dismiss(note_id)

    def invoke(self, note_id: int, action: str) -> None:
        """The signal of a pressed button."""
        assert self.bus is not None
        body = [note_id, action]
        self.bus.send(Message.new_signal(NOTIFICATIONS_PATH, NOTIFICATIONS, "ActionInvoked", "us", body))

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
        if message.member == "GetServerInformation":
            return Message.new_method_return(message, "ssss", [self.name, "", "1", "1.2"])
        if message.member == "Notify":
            return Message.new_method_return(message, "u", [self._notify(message.body)])
        (note_id,) = message.body
        if note_id not in self.visible:
            return Message.new_error(message, f"{NOTIFICATIONS}.Error.InvalidId", "no such notification")
        self.dismiss(note_id, reason=3)
        return Message.new_method_return(message)

    def _notify(self, body: Sequence[Any]) -> int:
        _, replaces, icon, summary, text, actions, hints, timeout = body
        signatures = {key: hint.signature for key, hint in hints.items()}
        shown = Shown(replaces, summary, text, unpack(hints), signatures, timeout, icon, actions)
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
        self.asked: list[tuple[str, str]] = []
        self.interactive: list[bool] = []
        self.answer: Callable[[str], Any] = lambda member: 12 if member == APPROVE else "Blue"
        self.history: list[dict[str, Any]] = []
        self.disks: list[dict[str, Any]] = []
        self.details: dict[str, dict[str, Any]] = {}

    async def start(self) -> None:
        """Own the name and answer."""
        self.bus = await Bus.system()
        methods = {
            GET_STATE: ServedMethod("", "a{sv}", self._get_state),
            GET_HISTORY: ServedMethod("sub", "aa{sv}", self._get_history),
            GET_DISKS: ServedMethod("", "aa{sv}", self._get_disks),
        }
        for member, answer in ((CANCEL, "s"), (APPROVE, "u"), (EJECT, "s")):
            methods[member] = ServedMethod("s", answer, functools.partial(self._ask, member))
        serve(self.bus, OBJECT_PATH, MANAGER, methods)
        for run_id in self.details:
            get_all = ServedMethod("s", "a{sv}", functools.partial(self._get_all, run_id))
            serve(self.bus, path_of(RUNS, run_id), PROPERTIES, {"GetAll": get_all})
        self.bus._connection._user_message_handlers.insert(0, self._note_flags)  # before the one that answers
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

    def _note_flags(self, message: Message) -> None:
        if message.message_type is MessageType.METHOD_CALL and message.member in {CANCEL, APPROVE, EJECT}:
            self.interactive.append(bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION))

    async def _ask(self, member: str, disk: str) -> Sequence[Any]:
        self.asked.append((member, disk))
        answer = self.answer(member)
        if isinstance(answer, asyncio.Future):
            answer = await answer
        if isinstance(answer, BusCallFailed):
            raise answer
        return [answer]

    async def _get_history(self, disk: str, number: int, failed: bool) -> Sequence[Any]:
        return [[variants(run) for run in self.history[:number]]]

    async def _get_disks(self) -> Sequence[Any]:
        return [[variants(disk) for disk in self.disks]]

    async def _get_all(self, run_id: str, interface: str) -> Sequence[Any]:
        assert interface == RUN
        return [variants(self.details[run_id])]


class StandInLogin:
    """logind, with one user whose only session is in front or not."""

    def __init__(self, *, active: bool, display: bool = True) -> None:
        self.active = active
        self.display = display
        self.asked = 0
        self.bus: Bus | None = None

    async def start(self) -> None:
        """Own the name and answer."""
        self.bus = await Bus.system()
        serve(self.bus, LOGIN_PATH, f"{LOGIN}.Manager", {"GetUser": ServedMethod("u", "o", self._get_user)})
        serve(self.bus, f"{LOGIN_PATH}/user", PROPERTIES, {"Get": ServedMethod("ss", "v", self._get_display)})
        serve(self.bus, f"{LOGIN_PATH}/session", PROPERTIES, {"Get": ServedMethod("ss", "v", self._get_active)})
        await self.bus.request_name(LOGIN)

    async def stop(self) -> None:
        """Be gone."""
        if self.bus is not None:
            await self.bus.close()
            self.bus = None

    def switch(self, *, active: bool) -> None:
        """Another user's session comes to the front, or goes."""
        assert self.bus is not None
        self.active = active
        body = [f"{LOGIN}.Session", variants({"Active": active}), []]
        self.bus.emit(f"{LOGIN_PATH}/session", PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    async def _get_user(self, uid: int) -> Sequence[Any]:
        assert uid == os.getuid()
        return [f"{LOGIN_PATH}/user"]

    async def _get_display(self, interface: str, name: str) -> Sequence[Any]:
        assert (interface, name) == (f"{LOGIN}.User", "Display")
        return [typed("(so)", ["1", f"{LOGIN_PATH}/session"] if self.display else ["", "/"])]

    async def _get_active(self, interface: str, name: str) -> Sequence[Any]:
        assert (interface, name) == (f"{LOGIN}.Session", "Active")
        self.asked += 1
        return [typed("b", self.active)]
