"""The only module that knows dbus-next. Calls have deadlines, a lost bus is an error and never a hang.

dbus-next 0.2.3 leaves a call waiting for ever when the bus goes (measured), and its proxies race with hotplug; so
only low-level messages with explicit signatures are used here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from dbus_next import BusType, Message, MessageType, Variant
from dbus_next.aio import MessageBus
from dbus_next.constants import MessageFlag, NameFlag, RequestNameReply
from dbus_next.errors import AuthError, InvalidAddressError

from immich_usb_backup.errors import BusCallFailed, BusLost, DeadlineMissed

CALL_SECONDS = 25.0
"""What D-Bus itself takes for a sensible deadline of one call."""

_GRACE_SECONDS = 0.2
_DBUS = "org.freedesktop.DBus"
_DBUS_PATH = "/org/freedesktop/DBus"
_PEER = "org.freedesktop.DBus.Peer"

SignalHandler = Callable[["Signal"], None]
TreeHandler = Callable[["Call"], Awaitable[tuple[str, Sequence[Any]]]]
"""Answers a call with a signature and values."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal as it came in, its variants unpacked."""

    sender: str
    path: str
    interface: str
    member: str
    body: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a unique name on the bus, and whether the person there may be asked for a password."""

    name: str
    interactive: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A method call as it came in, its variants unpacked. ``interface`` is empty where the caller named none."""

    path: str
    interface: str
    member: str
    signature: str
    body: tuple[Any, ...]
    caller: Caller


def unpack(value: Any) -> Any:
    """Variants replaced by what they hold, at any depth."""
    if isinstance(value, Variant):
        return unpack(value.value)
    if isinstance(value, dict):
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unpack(item) for item in value]
    return value


def variant(value: Any) -> Variant:
    """The variant for a plain value: text, truth, whole number, number, list of text."""
    if isinstance(value, bool):
        return Variant("b", value)
    if isinstance(value, int):
        return Variant("x", value)
    if isinstance(value, float):
        return Variant("d", value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return Variant("as", [sendable(str(item)) for item in value])
    return Variant("s", sendable(str(value)))


def typed(signature: str, value: Any) -> Variant:
    """The variant of exactly this signature, for those who insist on one."""
    return Variant(signature, value)


def variants(values: Mapping[str, Any]) -> dict[str, Variant]:
    """``a{sv}`` from plain values; None is left out."""
    return {key: variant(value) for key, value in values.items() if value is not None}


def sendable(text: str) -> str:
    """As D-Bus can carry it: UTF-8 without NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def close_socket(connection: MessageBus) -> None:
    """Let go of a connection's file descriptor. dbus-next only shuts the socket down, and holds it by a stream, too."""
    with suppress(OSError):
        connection._stream.close()  # noqa: SLF001
    connection._sock.close()  # noqa: SLF001


class Bus:
    """One connection to the system or the session bus."""

    def __init__(self, connection: MessageBus) -> None:
        self._connection = connection
        self._handlers: list[tuple[str, str, SignalHandler]] = []
        self._tree: TreeHandler | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, list[asyncio.Task[Any]]] = {}
        self._lost = asyncio.ensure_future(connection.wait_for_disconnect())
        self._lost.add_done_callback(lambda future: future.cancelled() or future.exception())
        connection.add_message_handler(self._on_message)

    @classmethod
    async def system(cls, *, timeout: float = CALL_SECONDS) -> Self:
        """Connect to the system bus. Raises ``BusLost``."""
        return await cls._connect(BusType.SYSTEM, timeout)

    @classmethod
    async def session(cls, *, timeout: float = CALL_SECONDS) -> Self:
        """Connect to the user's session bus. Raises ``BusLost``."""
        return await cls._connect(BusType.SESSION, timeout)

    @classmethod
    async def _connect(cls, kind: BusType, timeout: float) -> Self:
        name = kind.name.lower()
        try:
            async with asyncio.timeout(timeout):
                return cls(await MessageBus(bus_type=kind, negotiate_unix_fd=True).connect())
        except (OSError, AuthError, InvalidAddressError, EOFError) as error:
            raise BusLost(f"The {name} bus cannot be reached: {error}") from error
        except TimeoutError as error:
            raise BusLost(f"The {name} bus does not answer") from error

    @property
    def connected(self) -> bool:
        """Whether calls can be made."""
        return bool(self._connection.connected) and not self._lost.done()

    async def wait_lost(self) -> None:
        """Return when the connection is gone."""
        await asyncio.wait({self._lost})

    async def close(self) -> None:
        """Hang up."""
        if self._tasks:  # what has been answered goes out
            await asyncio.wait(self._tasks, timeout=_GRACE_SECONDS)
        for task in self._tasks:
            task.cancel()
        self._connection.disconnect()
        await asyncio.wait({self._lost}, timeout=1)
        close_socket(self._connection)

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        *,
        timeout: float = CALL_SECONDS,
        interactive: bool = False,
    ) -> tuple[Any, ...]:
        """Call a method and return the unpacked reply. File descriptors in it are indexes into nothing: see ``call_fd``.
        ``interactive``: the user may be asked for a password, for as long as ``timeout`` (seconds) allows.

        Raises ``BusCallFailed`` (the other side's error), ``BusLost``, ``DeadlineMissed``.
        """
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE
        reply = await self._call(destination, path, interface, member, signature, body, timeout, flags)
        for descriptor in reply.unix_fds:
            os.close(descriptor)
        return tuple(unpack(list(reply.body)))

    async def call_fd(
        self, destination: str, path: str, interface: str, member: str, signature: str, body: Sequence[Any]
    ) -> int:
        """Call a method that answers with one file descriptor, which the caller closes. Raises like ``call``."""
        reply = await self._call(destination, path, interface, member, signature, body, CALL_SECONDS)
        if len(reply.unix_fds) != 1:
            raise BusCallFailed("no-descriptor", f"{member} answered without a file descriptor")
        return int(reply.unix_fds[0])

    async def _call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str,
        body: Sequence[Any],
        timeout: float,
        flags: MessageFlag = MessageFlag.NONE,
    ) -> Message:
        if not self.connected:
            raise BusLost("The connection to D-Bus is gone")
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            flags=flags,
        )
        call = asyncio.ensure_future(self._connection.call(message))
        try:
            await asyncio.wait({call, self._lost}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise _no_answer(self._lost.done(), member, timeout)
            return _checked(call.result())
        except (EOFError, OSError) as error:  # the connection ends: dbus-next passes on what its reader met
            raise BusLost(f"The connection to D-Bus was lost during {member}") from error
        finally:
            call.cancel()

    async def subscribe(
        self,
        handler: SignalHandler,
        *,
        interface: str,
        member: str = "",
        sender: str = "",
        path_namespace: str = "",
        arg0: str = "",
    ) -> None:
        """Have ``handler`` called for each such signal, for as long as the connection lasts.

        What comes need not match: a signal sent to us alone passes no match rule. Check the sender where it matters.
        """
        parts = [f"type='signal',interface='{interface}'"]
        parts += [f"member='{member}'"] if member else []
        parts += [f"sender='{sender}'"] if sender else []
        parts += [f"path_namespace='{path_namespace}'"] if path_namespace else []
        parts += [f"arg0='{arg0}'"] if arg0 else []
        self._handlers.append((interface, member, handler))
        await self._ask_driver("AddMatch", "s", [",".join(parts)])

    async def _ask_driver(self, member: str, signature: str, body: Sequence[Any]) -> tuple[Any, ...]:
        return await self.call(_DBUS, _DBUS_PATH, _DBUS, member, signature, body)

    async def request_name(self, name: str) -> None:
        """Own a well-known name, alone. Raises ``BusCallFailed`` where somebody else has it or we may not."""
        flags = int(NameFlag.DO_NOT_QUEUE)
        (reply,) = await self._ask_driver("RequestName", "su", [name, flags])
        if reply not in {RequestNameReply.PRIMARY_OWNER.value, RequestNameReply.ALREADY_OWNER.value}:
            raise BusCallFailed(
                "name-taken", f"{name} is taken on the bus", hint="Is another immich-usb-backup daemon running?"
            )

    def serve_tree(self, handler: TreeHandler) -> None:
        """Have every call answered by ``handler``, but for those of the interface ``Peer``. It raises
        ``BusCallFailed`` for what is an error."""
        self._tree = handler

    def emit(self, path: str, interface: str, member: str, signature: str, body: Sequence[Any]) -> None:
        """Send a signal. Quietly nothing when the connection is gone: whoever watches it ends the process."""
        if self.connected:
            self._connection.send(
                Message(
                    message_type=MessageType.SIGNAL,
                    path=path,
                    interface=interface,
                    member=member,
                    signature=signature,
                    body=list(body),
                )
            )

    def _on_message(self, message: Message) -> Message | bool | None:
        if message.message_type is MessageType.SIGNAL:
            self._on_name_owner(message)
            self._dispatch(message)
            return None
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        for descriptor in message.unix_fds:  # no method of ours takes any, and whoever calls may send some all the same
            os.close(descriptor)
        if self._tree is None or message.interface == _PEER:
            return None
        task = asyncio.ensure_future(self._answer(message, self._tree))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _answer(self, message: Message, handler: TreeHandler) -> None:
        try:
            signature, body = await handler(_call(message))
            reply = Message.new_method_return(message, signature, list(body))
        except BusCallFailed as error:
            reply = Message.new_error(message, error.name, sendable(error.message))
        except Exception:
            # a bug: its trace comes out of the loop's handler, and whoever called must not wait for ever
            await self._reply(Message.new_error(message, f"{_DBUS}.Error.Failed", "The service made a mistake"))
            raise
        await self._reply(reply)

    async def _reply(self, reply: Message) -> None:
        if self.connected:
            await self._connection.send(reply)

    async def user_of(self, caller: str) -> int:
        """The user id of whoever has a name on the bus. Raises like ``call``."""
        (user,) = await self._ask_driver("GetConnectionUnixUser", "s", [caller])
        return int(user)

    @asynccontextmanager
    async def while_there(self, caller: str) -> AsyncIterator[None]:
        """Cancel what is done in here when a caller (a unique name) leaves the bus. Raises like ``call``."""
        task = asyncio.current_task()
        assert task is not None
        rule = f"type='signal',sender='{_DBUS}',interface='{_DBUS}',member='NameOwnerChanged',arg0='{caller}'"
        self._waiting.setdefault(caller, []).append(task)
        try:
            await self._ask_driver("AddMatch", "s", [rule])
            (there,) = await self._ask_driver("NameHasOwner", "s", [caller])
            if not there:  # it went before anybody watched
                task.cancel()
            yield
        finally:
            self._waiting[caller].remove(task)
            if not self._waiting[caller]:
                del self._waiting[caller]
            with suppress(BusCallFailed, BusLost, DeadlineMissed):
                await self._ask_driver("RemoveMatch", "s", [rule])

    def _on_name_owner(self, message: Message) -> None:
        if message.sender == _DBUS and message.member == "NameOwnerChanged" and message.signature == "sss":
            name, _, owner = message.body
            for task in [] if owner else self._waiting.get(name, []):
                task.cancel()

    def _dispatch(self, message: Message) -> None:
        signal: Signal | None = None
        for interface, member, handler in self._handlers:
            if interface == message.interface and member in {"", message.member}:
                signal = signal or _signal(message)
                handler(signal)


def _signal(message: Message) -> Signal:
    body = tuple(unpack(list(message.body)))
    return Signal(message.sender or "", message.path or "", message.interface or "", message.member or "", body)


def _call(message: Message) -> Call:
    caller = Caller(str(message.sender), bool(message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION))
    body = tuple(unpack(list(message.body)))
    return Call(message.path or "", message.interface or "", message.member or "", message.signature, body, caller)


def _no_answer(lost: bool, member: str, timeout: float) -> BusLost | DeadlineMissed:  # noqa: FBT001
    if lost:
        return BusLost(f"The connection to D-Bus was lost during {member}")
    return DeadlineMissed(f"{member} did not answer within {timeout:.0f} seconds")


def _checked(reply: Message | None) -> Message:
    if reply is None:
        raise BusLost("D-Bus gave no reply")
    if reply.message_type is MessageType.ERROR:
        text = str(reply.body[0]) if reply.body else str(reply.error_name)
        raise BusCallFailed(str(reply.error_name), text)
    return reply
