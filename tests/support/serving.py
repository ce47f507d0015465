"""Methods that a stand-in answers on a bus, each with its signatures."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from immich_usb_backup.adapters.bus import Bus, Call
from immich_usb_backup.errors import BusCallFailed

_ERROR = "org.freedesktop.DBus.Error"


@dataclass(frozen=True, slots=True)
class ServedMethod:
    """A method that others may call: its signatures and what answers it."""

    signature_in: str
    signature_out: str
    handler: Callable[..., Awaitable[Sequence[Any]]]


_Served = dict[tuple[str, str, str], ServedMethod]
_ON: WeakKeyDictionary[Bus, _Served] = WeakKeyDictionary()


def serve(bus: Bus, path: str, interface: str, methods: Mapping[str, ServedMethod]) -> None:
    """Answer these methods of one interface on one object, beside those that this bus answers already."""
    served = _ON.setdefault(bus, {})
    served |= {(path, interface, member): method for member, method in methods.items()}
    bus.serve_tree(functools.partial(_answer, served))


async def _answer(served: _Served, call: Call) -> tuple[str, Sequence[Any]]:
    method = served.get((call.path, call.interface, call.member))
    if method is None:
        raise BusCallFailed(f"{_ERROR}.UnknownMethod", f"nobody answers {call.member}")
    if call.signature != method.signature_in:
        raise BusCallFailed(f"{_ERROR}.InvalidArgs", f"takes '{method.signature_in}'")
    return method.signature_out, await method.handler(*call.body)
