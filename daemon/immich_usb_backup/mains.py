"""Backups that wait for mains power while the server runs on battery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from immich_usb_backup.config import Config
from immich_usb_backup.events import Event
from immich_usb_backup.jobs import Job
from immich_usb_backup.model import Disk, Notice, PlugIn, Trigger
from immich_usb_backup.notices import give
from immich_usb_backup.policy import power
from immich_usb_backup.ports import Ports

POLL_SECONDS = 60.0
"""How often it is looked whether mains power is back, where nothing tells of it."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    job: Job
    disk: Disk


class Mains:
    """Decides whether a backup may begin. Those that have to wait are kept here, out of the worker's way, and handed to
    ``enqueue`` when mains power is back. A backup that has begun goes on whatever happens."""

    def __init__(self, ports: Ports, config: Callable[[], Config], enqueue: Callable[[Job], None]) -> None:
        self._ports = ports
        self._config = config
        self._enqueue = enqueue
        self._waiting: dict[PlugIn, _Waiting] = {}
        self._any = asyncio.Event()

    def waits_for(self, plug_in: PlugIn) -> bool:
        """Whether a backup of this plug-in's disk waits for mains power."""
        return plug_in in self._waiting

    async def allows(self, job: Job, disk: Disk) -> bool:
        """Whether the backup may begin. Where it has to wait, or is not made at all, that is told. What a person asked for
        is never held up."""
        self._forget(job.seen.plug_in)
        choice = self._config().disks.on_battery
        if choice == "run" or job.trigger is Trigger.ASKED or not await self._ports.power.on_battery():
            return True
        if choice == "skip":
            words, event = power.SKIPPED, Event.SKIPPED_ON_BATTERY
        else:
            words, event = power.WAITS, Event.WAITS_FOR_MAINS
            self._waiting[job.seen.plug_in] = _Waiting(job, disk)
            self._any.set()
        notice = self._notice(words, disk, job.seen.plug_in)
        await give(notice, event, outbox=self._ports.outbox, watchers=self._ports.watchers, log=self._ports.log)
        return False

    def removed(self, plug_in: PlugIn) -> None:
        """A disk was unplugged: if it waited, that is told, and it does so no longer."""
        self._leave(plug_in, power.LEFT, Event.LEFT_BEFORE_MAINS)

    def cancelled(self, plug_in: PlugIn) -> bool:
        """Somebody does not want the backup any more. Returns whether it waited."""
        return self._leave(plug_in, power.CANCELLED, Event.CANCELLED_BEFORE_MAINS)

    def _leave(self, plug_in: PlugIn, words: power.Words, event: Event) -> bool:
        """Who looks at the state is told, and nobody by mail: whoever did it is at the machine."""
        waiting = self._waiting.get(plug_in)
        if waiting is None:
            return False
        self._forget(plug_in)
        self._ports.log.say(event, disk=waiting.disk.name, uuid=waiting.disk.uuid)
        self._ports.watchers.notice(self._notice(words, waiting.disk, plug_in))
        return True

    def _notice(self, words: power.Words, disk: Disk, plug_in: PlugIn) -> Notice:
        return power.notice(words, disk, plug_in, server=self._ports.server, now=self._ports.clock.now())

    def _forget(self, plug_in: PlugIn) -> None:
        self._waiting.pop(plug_in, None)
        if not self._waiting:
            self._any.clear()

    async def watch(self) -> None:
        """Have those that wait begin when mains power is back. Never returns."""
        while True:
            await self._any.wait()
            if self._config().disks.on_battery == "run" or not await self._ports.power.on_battery():
                self._go_on()
            else:
                await self._ports.power.changed(seconds=POLL_SECONDS)

    def _go_on(self) -> None:
        for plug_in, waiting in list(self._waiting.items()):
            self._forget(plug_in)
            self._ports.log.say(Event.MAINS_BACK, disk=waiting.disk.name, uuid=waiting.disk.uuid)
            self._enqueue(waiting.job)
