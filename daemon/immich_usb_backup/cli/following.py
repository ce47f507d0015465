"""Following a run to its end: what the service says of it, over a restart of the service too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.manager import ManagerOnBus
from immich_usb_backup.cli.asking import Unanswered, ask, ask_on, look
from immich_usb_backup.cli.records import disks_of, ended_run
from immich_usb_backup.cli.shown import Shown, shown_on
from immich_usb_backup.cli.terminal import Terminal
from immich_usb_backup.errors import BusCallFailed, DeadlineMissed
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import Outcome
from immich_usb_backup.policy.text import printable
from immich_usb_backup.policy.views import Going, RunView, Values, finished_view, going

TICK_SECONDS, QUIET_SECONDS, AWAY_SECONDS = 0.5, 120.0, 60.0
"""How often the file is looked for; after how long without any run there is none to wait for (a disk has to be looked at
first); how long a service that is started anew may take."""

ENDED = "The service ended before the backup was over"
NO_RUN = "The disk was not backed up to: it has no marker immich-server-backups, or it could not be looked at"
_ENDED_HINT = "Plug the disk in and give the command again: what was done need not be done again."
_GONE = "The service has ended. Waiting until it is there again."
_FILE_SECONDS = 3.0
_TICK, _OWNER, _LOST = "tick", "owner", "lost"


class Follow:
    """One run: that of the disk that is waited for, else whatever goes on or comes next."""

    def __init__(self, bus: Bus, shown: Shown) -> None:
        self._bus = bus
        self._shown = shown
        self._manager = ManagerOnBus(bus)
        self._events: asyncio.Queue[tuple[str, Values]] = asyncio.Queue()
        self._wanted = ""
        self._now: Going | None = None
        self._over: RunView | None = None
        self._there = True
        self._was_away = False
        self._waited = 0.0
        self._current = ""
        self._may_look = shown.wants_file

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """From here on nothing is missed. Raises ``BusLost``, ``DeadlineMissed``, ``BusCallFailed``."""
        self._there = await self._manager.watch(
            lambda member, fields: self._events.put_nowait((member, fields)),
            lambda there: self._events.put_nowait((_OWNER, {"there": there})),
        )
        tasks = [asyncio.ensure_future(self._ticks()), asyncio.ensure_future(self._lost())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def outcome(self, uuid: str = "") -> RunView:
        """The end of the run of this disk, or of any. Raises ``Unanswered``."""
        self._wanted = uuid
        await self._learn()
        while self._over is None:
            member, fields = await self._events.get()
            await self._handle(member, fields)
        self._shown.finished(self._over)
        return self._over

    async def _handle(self, member: str, fields: Values) -> None:
        if member == _TICK:
            await self._tick()
        elif member == _OWNER:
            await self._owner(there=bool(fields["there"]))
        elif member == _LOST:
            raise Unanswered(ExitCode.UNAVAILABLE, ENDED, hint=_ENDED_HINT)
        elif member == dbus_names.RUN_FINISHED:
            self._finished(finished_view(fields))
        elif member in {dbus_names.RUN_STARTED, dbus_names.RUN_PROGRESS}:
            self._progress(going(fields))

    def _progress(self, now: Going | None) -> None:
        if now is None or not self._is_ours(now):
            return
        if self._now is not None and now.run == self._now.run:  # not each signal has all of it
            now = replace(now, uuid=now.uuid or self._now.uuid, headline=now.headline or self._now.headline)
        self._now, self._waited = now, 0.0
        self._shown.progress(now, self._current)

    def _is_ours(self, now: Going) -> bool:
        if self._now is not None and now.run == self._now.run:
            return True
        return now.uuid == self._wanted if self._wanted else self._now is None

    def _finished(self, run: RunView) -> None:
        ours = run.run == self._now.run if self._now is not None else not self._wanted
        if ours or (self._wanted and run.disk == self._wanted):
            self._over = run

    # What does not come by itself -------------------------------------------------------------------------

    async def _learn(self) -> None:
        """A run may be under way already."""
        try:
            state = await self._manager.state()
        except (BusCallFailed, DeadlineMissed):
            return
        self._progress(going(state))

    async def _owner(self, *, there: bool) -> None:
        self._there, self._waited = there, 0.0
        if not there:
            self._was_away = True
            self._shown.note(_GONE)
            return
        await self._learn()
        if self._now is not None:
            self._over = await ended_run(self._bus, self._now.run)

    async def _tick(self) -> None:
        if self._there and self._now is not None and self._may_look:
            await self._look_at_file(self._now)
        if self._now is not None or self._wanted:
            await self._give_up_some_day()

    async def _look_at_file(self, now: Going) -> None:
        try:
            self._current = str(await look(self._bus, dbus_names.GET_CURRENT_FILE, timeout=_FILE_SECONDS))
        except Unanswered:  # not everybody may know it
            self._may_look, self._current = False, ""
        except DeadlineMissed:
            self._current = ""
        self._shown.progress(now, self._current)

    async def _give_up_some_day(self) -> None:
        """A disk that turns out not to be ours has no run, and so no outcome; nor has one whose service does not come back."""
        self._waited += TICK_SECONDS
        limit = QUIET_SECONDS if self._there and not self._was_away else AWAY_SECONDS
        if self._waited < limit or await self._something_goes_on():
            return
        if self._there and not self._was_away and self._now is None:
            raise Unanswered(ExitCode.PROBLEM, NO_RUN, hint="See: journalctl -u immich-usb-backup")
        raise Unanswered(ExitCode.UNAVAILABLE, ENDED, hint=_ENDED_HINT)

    async def _something_goes_on(self) -> bool:
        self._waited = 0.0
        try:
            return self._there and bool((await self._manager.state()).get("running"))
        except (BusCallFailed, DeadlineMissed):
            return False

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._events.empty():
                self._events.put_nowait((_TICK, {}))

    async def _lost(self) -> None:
        await self._bus.wait_lost()
        self._events.put_nowait((_LOST, {}))


async def watch(follow: Follow, shown: Shown, uuid: str = "") -> int:
    """Until the run is over; the command's exit code. Ctrl+C ends only the command. Raises ``Unanswered``."""
    try:
        run = await follow.outcome(uuid)
    except asyncio.CancelledError:
        shown.left()
        raise
    return ExitCode.OK if run.outcome == Outcome.OK else ExitCode.PROBLEM


async def ask_and_watch(member: str, *words: str, said: Callable[[str], None]) -> int:
    """Ask for a run, and stay until it is over; ``said`` is given the disk's name. Raises ``Unanswered``, ``BusLost``."""
    bus = await Bus.system()
    try:
        shown = shown_on(Terminal())
        follow = Follow(bus, shown)
        async with follow.listening():
            name, *uuid = await ask_on(bus, member, *words)
            said(str(name))
            return await watch(follow, shown, str(uuid[0]) if uuid else await _uuid_of(bus, str(name)))
    finally:
        await bus.close()


async def _uuid_of(bus: Bus, name: str) -> str:
    """Of the disk of this name that is plugged in; empty where it could be several: then any run is followed."""
    found = [disk.uuid for disk in await disks_of(bus) if disk.name == name and disk.device]
    return found[0] if len(found) == 1 else ""


def begin(member: str, *words: str, wait: bool) -> int:
    """Have a run begin, for the commands that may stay until it is over; the command's exit code."""
    try:
        if wait:
            return asyncio.run(ask_and_watch(member, *words, said=_begins))
        _begins(str(ask(member, *words)))
    except Unanswered as error:
        return error.show()
    print("Leave the disk plugged in. Watch it: immich-usb-backup status --follow")
    return ExitCode.OK


def _begins(name: str) -> None:
    print(f"The backup to '{printable(name)}' begins as soon as nothing else is under way.", flush=True)
