"""Events in, one worker, one run at a time; and how the service starts, reloads and stops."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from immich_usb_backup import recovery
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, BusLost, ConfigError, DiskGone, Interrupted
from immich_usb_backup.events import Event
from immich_usb_backup.model import DeviceAction, PartitionSeen, PlugIn
from immich_usb_backup.policy.eligibility import judge_seen, worth_a_line
from immich_usb_backup.ports import Ports
from immich_usb_backup.run import Stop, back_up

_HANDLED_KEPT = 500


class Daemon:
    """The long-running part. ``reload`` reads the configuration again; ``bus_lost`` returns when D-Bus is gone."""

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
        self._runs_left = runs_at_most
        self._queue: OrderedDict[PlugIn, PartitionSeen] = OrderedDict()
        self._filled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._current: tuple[PartitionSeen, Stop, asyncio.Task[object]] | None = None
        self._handled: OrderedDict[PlugIn, str] = OrderedDict()
        self._rejected: OrderedDict[PlugIn, tuple[str, ...]] = OrderedDict()

    async def run(self, *, ready: Callable[[], None]) -> None:
        """Work until ``stop``. ``ready`` is called when plugging in is noticed. Raises ``BusLost``."""
        await recovery.clean_up(self._ports)
        await self._ports.devices.start()
        ready()
        self._ports.log.say(Event.READY, transports=", ".join(self.config.disks.transports))
        tasks = [asyncio.ensure_future(work) for work in (self._listen(), self._work(), self._stopping.wait())]
        lost = asyncio.ensure_future(self._bus_lost())
        try:
            done, _ = await asyncio.wait({lost, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            await self._end_current(lost_bus=lost in done)
        finally:
            await _cancel({lost, *tasks})
        for task in done:
            task.result()
        if lost in done:
            raise BusLost("The connection to D-Bus was lost")

    def stop(self) -> None:
        """End: a run that goes on is interrupted, its disk unmounted, its outcome recorded."""
        self._stopping.set()

    @property
    def healthy(self) -> bool:
        """Whether the service does what it is there for; the watchdog is fed only then."""
        return not self._stopping.is_set()

    @property
    def busy(self) -> bool:
        """Whether a run goes on."""
        return self._current is not None

    def reload(self) -> None:
        """Read the configuration again. One with mistakes changes nothing; a run that goes on keeps its own."""
        try:
            self.config = self._reload()
        except ConfigError as error:
            self._ports.log.say(Event.RELOAD_REFUSED, problems="; ".join(error.problems))
        else:
            self._ports.log.say(Event.RELOADED)
            self._rejected.clear()

    async def _listen(self) -> None:
        async for seen in self._ports.devices.events():
            if seen.action is DeviceAction.REMOVE:
                self._on_removed(seen)
            else:
                await self._on_seen(seen)

    def _on_removed(self, seen: PartitionSeen) -> None:
        self._queue.pop(seen.plug_in, None)
        self._rejected.pop(seen.plug_in, None)
        self._cancel_if_current(seen)
        name = self._handled.pop(seen.plug_in, None)
        if name:
            self._ports.log.say(Event.DISK_REMOVED, disk=name, uuid=seen.uuid, device=seen.device_node)
            self._ports.watchers.disk_removed(seen.uuid, name)

    def _cancel_if_current(self, seen: PartitionSeen) -> None:
        """The disk of the run that goes on was pulled, or is another one now."""
        if self._current is None:
            return
        current, stop, task = self._current
        number = current.plug_in.device_number
        replaced = seen.plug_in.device_number == number and seen.plug_in != current.plug_in
        if seen.plug_in == current.plug_in or replaced:
            stop.cause = stop.cause or DiskGone(f"{current.device_node} was unplugged before the backup was finished")
            task.cancel()

    async def _on_seen(self, seen: PartitionSeen) -> None:
        if self._current is not None and seen.plug_in != self._current[0].plug_in:
            number = self._current[0].plug_in.device_number
            if seen.plug_in.device_number == number:
                self._cancel_if_current(seen)
        if self._is_known(seen.plug_in):
            return
        verdict = judge_seen(seen, transports=self.config.disks.transports)
        if not verdict.accepted:
            self._reject(seen, verdict.reasons)
            return
        if await self._had_its_run(seen.plug_in):
            _remember(self._handled, seen.plug_in, "")
            return
        self._enqueue(seen)

    def _is_known(self, plug_in: PlugIn) -> bool:
        running = self._current is not None and self._current[0].plug_in == plug_in
        if running and self._current is not None and isinstance(self._current[1].cause, DiskGone):
            running = False  # it went and came back (its partitions were read again): this run is ending
        return running or plug_in in self._queue or plug_in in self._handled

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
        _remember(self._rejected, seen.plug_in, reasons)
        event = Event.DISK_IGNORED if worth_a_line(seen) else Event.DISK_IRRELEVANT
        self._ports.log.say(
            event, device=seen.device_node, label=seen.label, uuid=seen.uuid, reasons="; ".join(reasons)
        )

    def _enqueue(self, seen: PartitionSeen) -> None:
        if self._stopping.is_set():
            return
        if self._current is not None or self._queue:
            self._ports.log.say(Event.DISK_QUEUED, device=seen.device_node, label=seen.label, uuid=seen.uuid)
        self._queue[seen.plug_in] = seen
        self._filled.set()

    async def _work(self) -> None:
        while self._runs_left is None or self._runs_left > 0:
            while not self._queue:
                self._filled.clear()
                await self._filled.wait()
            _, seen = self._queue.popitem(last=False)
            await self._run_one(seen)

    async def _run_one(self, seen: PartitionSeen) -> None:
        stop = Stop(drive_wanted=lambda: self._has_waiting(seen.plug_in))
        task = asyncio.ensure_future(back_up(seen, config=self.config, ports=self._ports, stop=stop))
        self._current = (seen, stop, task)
        try:
            await asyncio.wait({task})
        finally:
            self._current = None
        report = None if task.cancelled() else task.result()
        came_back = isinstance(stop.cause, DiskGone) and seen.plug_in in self._queue
        if self._ports.devices.present(seen.plug_in) and not came_back:
            _remember(self._handled, seen.plug_in, report.disk.name if report else "")
        if report is not None and self._runs_left is not None:
            self._runs_left -= 1

    def _has_waiting(self, plug_in: PlugIn) -> bool:
        """Whether another partition of the same drive is in the queue."""
        return any(
            (other.boot_id, other.disk_sequence) == (plug_in.boot_id, plug_in.disk_sequence) for other in self._queue
        )

    async def _end_current(self, *, lost_bus: bool) -> None:
        """Interrupt the run that goes on, and wait until its disk is unmounted and its outcome recorded."""
        self._stopping.set()
        self._queue.clear()
        if self._current is None:
            return
        _, stop, task = self._current
        why = "the connection to D-Bus was lost" if lost_bus else "the backup service was stopped"
        stop.cause = stop.cause or Interrupted(f"The backup was interrupted: {why}")
        task.cancel()
        await asyncio.wait({task})


def _remember(known: OrderedDict[PlugIn, Any], plug_in: PlugIn, value: Any) -> None:
    known[plug_in] = value
    while len(known) > _HANDLED_KEPT:
        known.popitem(last=False)


async def _cancel(tasks: set[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
