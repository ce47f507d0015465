"""The guest's journal as it grows: what our services say is read once, and waited for without asking the guest."""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from tests.vm.guest import Guest, GuestError

Entry = Mapping[str, Any]

UNITS = tuple(f"immich-usb-backup{name}.service" for name in ("", "-notifier", "-remind"))
_FOLLOW = (
    f"journalctl --quiet --follow --lines=all --output=json --all {' + '.join(f'_SYSTEMD_UNIT={u}' for u in UNITS)}"
)


def place(cursor: str) -> int:
    """Where in the journal a cursor stands: its sequence number."""
    return int(dict(part.split("=", 1) for part in cursor.split(";"))["i"], 16)


class Journal:
    """What our services have said since the guest was booted."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._entries: list[Entry] = []
        self._places: list[int] = []
        self._more = asyncio.Condition()
        self._over = False

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[Self]:
        """Entries come as long as the block lasts."""
        following = asyncio.create_task(self._follow())
        try:
            yield self
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    async def now(self) -> int:
        """The place of the journal's last entry."""
        shown = await self._guest.sh("journalctl --quiet --lines=0 --show-cursor")
        return place(shown.stdout.rpartition("-- cursor: ")[2].strip())

    def since(self, start: int) -> list[Entry]:
        """What has come after a place."""
        return self._entries[bisect_right(self._places, start) :]

    async def first(self, start: int, is_it: Callable[[Entry], bool], *, timeout: float, what: str) -> Entry:
        """The first entry after a place that is looked for. Raises ``GuestError``."""
        try:
            async with asyncio.timeout(timeout), self._more:
                while not (found := next(filter(is_it, self.since(start)), None)):
                    if self._over:
                        raise GuestError(f"the journal ended before {what}")
                    await self._more.wait()
                return found
        except TimeoutError as late:
            raise GuestError(f"not within {timeout:.0f} s: {what}") from late

    async def _follow(self) -> None:
        try:
            async with self._guest.lines(_FOLLOW) as lines:
                async for line in lines:
                    await self._take(json.loads(line))
        finally:
            await self._end()

    async def _take(self, entry: Entry) -> None:
        async with self._more:
            self._entries.append(entry)
            self._places.append(place(entry["__CURSOR"]))
            self._more.notify_all()

    async def _end(self) -> None:
        async with self._more:
            self._over = True
            self._more.notify_all()
