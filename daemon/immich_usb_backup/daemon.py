"""Events in, and how the service starts, reloads and stops. What is done: ``worker.py``; what is asked for: ``asked.py``."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from immich_usb_backup import recovery
from immich_usb_backup.asked import Asked
from immich_usb_backup.config import Config
from immich_usb_backup.disks_here import DisksHere
from immich_usb_backup.errors import BackupError, BusLost, ConfigError
from immich_usb_backup.events import Event
from immich_usb_backup.jobs import Job
from immich_usb_backup.model import DeviceAction, PartitionSeen, PlugIn
from immich_usb_backup.policy.eligibility import judge_seen, worth_a_line
from immich_usb_backup.ports import Ports
from immich_usb_backup.worker import Worker

_REJECTED_KEPT = 500


class Daemon:
    """The long-running part. ``reload`` reads the configuration again; ``bus_lost`` returns when D-Bus is gone.

    ``asked`` is for whoever brings a person's requests.
    """

    def __init__(
        self,
        config: Config,
        ports: Ports,
        *,
        reload: Callable[[], Config],
        bus_lost: Callable[[], Coroutine[Any, Any, None]],
        runs_at_most: int | None = None,
    ) -> None:
        self.config = config
        self._ports = ports
        self._reload = reload
        self._bus_lost = bus_lost
        self._here = DisksHere(ports, lambda: self.config.disks.transports)
        self._worker = Worker(ports, lambda: self.config, runs_at_most=runs_at_most)
        self.asked = Asked(ports, self._worker, self._here, lambda: self.config)
        self._rejected: OrderedDict[PlugIn, tuple[str, ...]] = OrderedDict()

    async def run(self, *, ready: Callable[[], None]) -> None:
        """Work until ``stop``. ``ready`` is called when plugging in is noticed. Raises ``BusLost``."""
        await recovery.clean_up(self._ports)
        await self._ports.devices.start()
        ready()
        self._ports.log.say(Event.READY, transports=", ".join(self.config.disks.transports))
        worker = self._worker
        ends = (worker.stopping.wait(), worker.end_when_idle())
        tasks = [asyncio.ensure_future(work) for work in (self._listen(), worker.work(), worker.mains.watch(), *ends)]
        lost = asyncio.ensure_future(self._bus_lost())
        try:
            done, _ = await asyncio.wait({lost, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            await self._worker.end(lost_bus=lost in done)
        finally:
            await _cancel({lost, *tasks})
        for task in done:
            task.result()
        if lost in done:
            raise BusLost("The connection to D-Bus was lost")

    def stop(self) -> None:
        """End: a run that goes on is interrupted, its disk unmounted, its outcome recorded."""
        self._worker.stopping.set()

    def begin_anew(self) -> None:
        """End as soon as there is nothing to do, for whoever starts it again: the program or its unit has changed."""
        self._ports.log.say(Event.BEGINS_ANEW)
        self._worker.anew.set()

    @property
    def wants_to_begin_anew(self) -> bool:
        """Whether that was asked for."""
        return self._worker.anew.is_set()

    @property
    def healthy(self) -> bool:
        """Whether the service does what it is there for; the watchdog is fed only then."""
        return not self._worker.stopping.is_set()

    @property
    def busy(self) -> bool:
        """Whether a run goes on."""
        return self._worker.current is not None

    def reload(self) -> None:
        """Read the configuration again. One with mistakes changes nothing; a run that goes on keeps its own."""
        try:
            self.config = self._reload()
        except ConfigError as error:
            self._ports.log.say(Event.RELOAD_REFUSED, problems="; ".join(error.problems))
        else:
            self._ports.log.say(Event.RELOADED)
            self._rejected.clear()
            self._worker.changed()

    async def _listen(self) -> None:
        async for seen in self._ports.devices.events():
            if seen.action is DeviceAction.REMOVE:
                self._on_removed(seen)
            else:
                await self._on_seen(seen)

    def _on_removed(self, seen: PartitionSeen) -> None:
        self._here.forget(seen.plug_in)
        self._rejected.pop(seen.plug_in, None)
        self._worker.removed(seen)
        name = self._worker.handled.pop(seen.plug_in, None)
        if name:
            self._ports.log.say(Event.DISK_REMOVED, disk=name, uuid=seen.uuid, device=seen.device_node)
            self._ports.watchers.disk_removed(seen.uuid, name)

    async def _on_seen(self, seen: PartitionSeen) -> None:
        self._here.note(seen)
        self._worker.changed()
        current = self._worker.current
        if current is not None and seen.plug_in != current.plug_in:
            self._worker.cancel_if_pulled(seen)
        if self._worker.knows(seen.plug_in):
            return
        verdict = judge_seen(seen, transports=self.config.disks.transports)
        if not verdict.accepted:
            self._reject(seen, verdict.reasons)
            return
        if await self._had_its_run(seen.plug_in):
            self._worker.remember(seen.plug_in, "")
            return
        if not self._worker.knows(seen.plug_in):  # somebody may have asked for it meanwhile
            self._worker.enqueue(Job(seen))

    async def _had_its_run(self, plug_in: PlugIn) -> bool:
        try:
            return await self._ports.history.handled(plug_in)
        except BackupError as error:
            self._ports.log.say(Event.FATAL, message=error.message, hint=error.hint)
            return False

    def _reject(self, seen: PartitionSeen, reasons: tuple[str, ...]) -> None:
        """One line in the journal for each plug-in, not for each of its events."""
        if self._rejected.get(seen.plug_in) == reasons:
            return
        self._rejected[seen.plug_in] = reasons
        while len(self._rejected) > _REJECTED_KEPT:
            self._rejected.popitem(last=False)
        event = Event.DISK_IGNORED if worth_a_line(seen) else Event.DISK_IRRELEVANT
        self._ports.log.say(
            event, device=seen.device_node, label=seen.label, uuid=seen.uuid, reasons="; ".join(reasons)
        )


async def _cancel(tasks: set[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
