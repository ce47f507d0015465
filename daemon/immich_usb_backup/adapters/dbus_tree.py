"""Objects on the bus: what each can do and is, described, listed and answered as every D-Bus program expects it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from xml.sax.saxutils import quoteattr

from immich_usb_backup.adapters.bus import Call, typed
from immich_usb_backup.errors import BusCallFailed

PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
_ERROR = "org.freedesktop.DBus.Error"

Values = Mapping[str, Mapping[str, Any]]
"""The properties of one object, by interface and name."""


@dataclass(frozen=True, slots=True)
class Args:
    """The arguments of a method or signal: names and types."""

    pairs: tuple[tuple[str, str], ...] = ()

    @property
    def signature(self) -> str:
        """All types, one after the other."""
        return "".join(kind for _, kind in self.pairs)

    def xml(self, direction: str = "") -> str:
        """As elements."""
        which = f' direction="{direction}"' if direction else ""
        return "".join(f'<arg name="{name}" type="{kind}"{which}/>' for name, kind in self.pairs)


def args(text: str) -> Args:
    """``disk:s mode:s`` as arguments."""
    return Args(tuple((name, kind) for name, _, kind in (word.partition(":") for word in text.split())))


def types(text: str) -> dict[str, str]:
    """``Name:s Size:x`` as types by name."""
    return dict(args(text).pairs)


@dataclass(frozen=True, slots=True)
class Method:
    """What can be called, and what answers it."""

    takes: Args
    gives: Args
    handler: Callable[[Call], Awaitable[Sequence[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """What objects of one kind have. ``properties`` are by name, each with its type; ``constant`` are those that never
    change."""

    name: str
    methods: Mapping[str, Method] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    constant: frozenset[str] = frozenset()
    signals: Mapping[str, Args] = field(default_factory=dict)

    def typed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values of properties as variants of just these types."""
        return {name: typed(self.properties[name], value) for name, value in values.items()}

    def xml(self) -> str:
        """Its description."""
        lines = [f'  <interface name="{self.name}">']
        for name, method in self.methods.items():
            lines.append(f'    <method name="{name}">{method.takes.xml("in")}{method.gives.xml("out")}</method>')
        for name, kind in self.properties.items():
            lines.append(
                f'    <property name="{name}" type="{kind}" access="read">{_never_changes(name, self)}</property>'
            )
        lines += [f'    <signal name="{name}">{signal.xml()}</signal>' for name, signal in self.signals.items()]
        return "\n".join([*lines, "  </interface>"])


def _never_changes(name: str, interface: Interface) -> str:
    annotation = '<annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/>'
    return annotation if name in interface.constant else ""


class Objects(Protocol):
    """What is on the bus now. Everything may raise ``BusCallFailed``."""

    def interfaces(self, path: str) -> tuple[Interface, ...]:
        """What an object at this path has; none: there never is one."""

    async def values(self, path: str) -> Values | None:
        """The properties of one object, also of one that is not listed; None: there is none."""

    async def listed(self) -> Mapping[str, Values]:
        """Every object that is listed, by its path."""


class Tree:
    """Answers every call to ``objects``; ``root`` is the path of the one that lists the others."""

    def __init__(self, root: str, objects: Objects) -> None:
        self._root = root
        self._objects = objects
        self._of_all = {
            INTROSPECTABLE: _interface(INTROSPECTABLE, Introspect=("", "xml:s", self._introspect)),
            PROPERTIES: _interface(
                PROPERTIES,
                {"PropertiesChanged": args("interface:s changed:a{sv} invalidated:as")},
                Get=("interface:s property:s", "value:v", self._get),
                GetAll=("interface:s", "values:a{sv}", self._get_all),
                Set=("interface:s property:s value:v", "", self._set),
            ),
        }
        self._of_root = _interface(
            OBJECT_MANAGER,
            {
                "InterfacesAdded": args("object:o interfaces:a{sa{sv}}"),
                "InterfacesRemoved": args("object:o interfaces:as"),
            },
            GetManagedObjects=("", "objects:a{oa{sa{sv}}}", self._list),
        )

    async def answer(self, call: Call) -> tuple[str, Sequence[Any]]:
        """Do what is asked for. Raises ``BusCallFailed``."""
        method = self._method(call)
        if call.signature != method.takes.signature:
            raise BusCallFailed(f"{_ERROR}.InvalidArgs", f"{call.member} takes '{method.takes.signature}'")
        return method.gives.signature, await method.handler(call)

    def _method(self, call: Call) -> Method:
        there = self._interfaces(call.path)
        if call.interface:
            there = tuple(one for one in there if one.name == call.interface)
            if not there:
                raise _no_interface(call.interface)
        for interface in there:
            if call.member in interface.methods:
                return interface.methods[call.member]
        raise BusCallFailed(f"{_ERROR}.UnknownMethod", f"There is no method {call.member} here")

    def _interfaces(self, path: str) -> tuple[Interface, ...]:
        """Also of what is between the objects: it can be described."""
        own = self._objects.interfaces(path)
        of_root = (self._of_root,) if path == self._root else ()
        return (*own, *of_root, *(self._of_all.values() if own else (self._of_all[INTROSPECTABLE],)))

    async def _introspect(self, call: Call) -> Sequence[Any]:
        own = self._objects.interfaces(call.path)
        if own and await self._objects.values(call.path) is None:
            raise _no_object()
        children = _children(call.path, await self._objects.listed())
        if not (own or children):
            raise _no_object()
        described = [interface.xml() for interface in self._interfaces(call.path)]
        nodes = [f"  <node name={quoteattr(name)}/>" for name in children]
        return ["\n".join((_HEAD, "<node>", *described, *nodes, "</node>", ""))]

    async def _get(self, call: Call) -> Sequence[Any]:
        wanted, name = call.body
        for interface, values in await self._properties(call.path, wanted):
            if name in values:
                return [interface.typed(values)[name]]
        raise BusCallFailed(f"{_ERROR}.UnknownProperty", "There is no such property here")

    async def _get_all(self, call: Call) -> Sequence[Any]:
        found: dict[str, Any] = {}
        for interface, values in await self._properties(call.path, call.body[0]):
            found.update(interface.typed(values))
        return [found]

    async def _set(self, call: Call) -> Sequence[Any]:
        await self._get(Call(call.path, call.interface, "Get", "ss", call.body[:2], call.caller))
        raise BusCallFailed(f"{_ERROR}.PropertyReadOnly", "Nothing here can be set")

    async def _properties(self, path: str, wanted: str) -> list[tuple[Interface, Mapping[str, Any]]]:
        """Those of one interface, or of all."""
        values = await self._objects.values(path)
        if values is None:
            raise _no_object()
        there = [one for one in self._interfaces(path) if wanted in {"", one.name}]
        if not there:
            raise _no_interface(wanted)
        return [(one, values.get(one.name, {})) for one in there]

    async def _list(self, call: Call) -> Sequence[Any]:
        del call
        listed = await self._objects.listed()
        return [{path: self.all_typed(path, values) for path, values in listed.items()}]

    def all_typed(self, path: str, values: Values) -> dict[str, dict[str, Any]]:
        """The properties of one object as variants."""
        return {one.name: one.typed(values.get(one.name, {})) for one in self._objects.interfaces(path)}


_HEAD = """<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">"""


def _interface(
    name: str,
    signals: Mapping[str, Args] | None = None,
    **methods: tuple[str, str, Callable[[Call], Awaitable[Sequence[Any]]]],
) -> Interface:
    return Interface(
        name=name,
        methods={member: Method(args(takes), args(gives), of) for member, (takes, gives, of) in methods.items()},
        signals=signals or {},
    )


def _children(path: str, paths: Iterable[str]) -> list[str]:
    prefix = path.rstrip("/") + "/"
    below = (one.removeprefix(prefix) for one in paths if one.startswith(prefix))
    return sorted({one.partition("/")[0] for one in below})


def _no_object() -> BusCallFailed:
    return BusCallFailed(f"{_ERROR}.UnknownObject", "There is no such object")


def _no_interface(name: str) -> BusCallFailed:
    return BusCallFailed(f"{_ERROR}.UnknownInterface", f"There is no interface '{name}' here")
