"""What the bus was told of the objects, so that every change is told, once, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.dbus_tree import OBJECT_MANAGER, PROPERTIES, Interface, Values
from immich_usb_backup.errors import BackupError

OLD_SECONDS = 60.0
"""What was computed longer ago is computed again when somebody asks: some of it follows from the time."""

Everything = Mapping[str, Values]


class Mirror:
    """``compute`` finds out how every object is now; what is another than before is told as signals from ``root``."""

    def __init__(
        self,
        bus: Bus,
        root: str,
        *,
        compute: Callable[[], Awaitable[Everything]],
        interfaces: Callable[[str], tuple[Interface, ...]],
        monotonic: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._root = root
        self._compute = compute
        self._interfaces = interfaces
        self._monotonic = monotonic
        self._told: dict[str, Values] = {}
        self._computed: float | None = None
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def touch(self) -> None:
        """Something may have changed: it is told soon, several changes at once."""
        self._computed = None
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._soon())

    async def _soon(self) -> None:
        """Until nothing has changed meanwhile. What cannot be computed is told to whoever asks."""
        while self._computed is None:
            try:
                await self.now()
            except BackupError:
                return

    async def now(self) -> Everything:
        """Every object as it is now. Raises what ``compute`` does."""
        async with self._lock:
            if self._computed is None or self._monotonic() - self._computed >= OLD_SECONDS:
                self._computed = self._monotonic()  # first: a change meanwhile makes it old
                try:
                    self._tell(await self._compute())
                except BaseException:
                    self._computed = None
                    raise
            return dict(self._told)

    def set(self, path: str, interface: str, values: Mapping[str, Any]) -> None:
        """Properties of one object that is known already have these values now."""
        before = self._told.get(path)
        if before is not None:
            self._told[path] = {**before, interface: {**before.get(interface, {}), **values}}
            self._tell_changes(path, before, self._told[path])

    def _tell(self, now: Everything) -> None:
        before, self._told = self._told, dict(now)
        for path in before.keys() - now.keys():
            self._emit(self._root, OBJECT_MANAGER, "InterfacesRemoved", "oas", [path, list(before[path])])
        for path in [path for path in now if path not in before]:
            added = {one.name: one.typed(now[path].get(one.name, {})) for one in self._interfaces(path)}
            self._emit(self._root, OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, added])
        for path in before.keys() & now.keys():
            self._tell_changes(path, before[path], now[path])

    def _tell_changes(self, path: str, before: Values, now: Values) -> None:
        for one in self._interfaces(path):
            old, new = before.get(one.name, {}), now.get(one.name, {})
            changed = {name: value for name, value in new.items() if old.get(name) != value}
            if changed:
                self._emit(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [one.name, one.typed(changed), []])

    def _emit(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        self._bus.emit(path, interface, member, signature, body)
