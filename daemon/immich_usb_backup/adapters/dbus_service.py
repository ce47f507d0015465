"""The daemon's face on the system bus: what goes on as signals and properties, and what may be asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from immich_usb_backup import dbus_names, messages
from immich_usb_backup.adapters import dbus_values
from immich_usb_backup.adapters.bus import Bus, Call, variants
from immich_usb_backup.adapters.dbus_methods import Asking, Guard, answered
from immich_usb_backup.adapters.dbus_mirror import Everything, Mirror
from immich_usb_backup.adapters.dbus_tree import Interface, Method, Tree, Values, args
from immich_usb_backup.adapters.dbus_values import Going
from immich_usb_backup.adapters.paced import Paced
from immich_usb_backup.adapters.polkit import Polkit
from immich_usb_backup.config import Desktop
from immich_usb_backup.errors import BackupError
from immich_usb_backup.model import Disk, Notice, Progress, RunReport
from immich_usb_backup.requests import Requests

SIGNAL_SECONDS = 0.5
RUNS_LISTED = 50

_SIGNALS = {
    dbus_names.RUN_STARTED: args("run:a{sv}"),
    dbus_names.RUN_PROGRESS: args("progress:a{sv}"),
    dbus_names.RUN_FINISHED: args("report:a{sv}"),
    dbus_names.DISK_REMOVED: args("disk:a{sv}"),
    dbus_names.NOTICE: args("notice:a{sv}"),
}


class DaemonOnBus:
    """The ``Watchers`` port as D-Bus signals, and the objects: manager, disks, runs. ``now`` is the time of the day."""

    def __init__(
        self,
        bus: Bus,
        desktop: Callable[[], Desktop],
        monotonic: Callable[[], float],
        *,
        guard: Guard | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._desktop = desktop
        self._now = now
        self._version = _version()
        self._guard = guard or Polkit(bus)
        self._paced = Paced(SIGNAL_SECONDS, monotonic)
        self._state: dict[str, Any] = {"running": False}
        self._going: Going | None = None
        self._interfaces: dict[str, tuple[Interface, ...]] = {}
        self._requests: Requests | None = None
        self._reading = asyncio.Lock()
        """Held while somebody has runs read from the history: everybody may ask, and many at once shall cost no more."""
        self._mirror = Mirror(
            bus, dbus_names.OBJECT_PATH, compute=self._everything, interfaces=self.interfaces, monotonic=monotonic
        )

    async def start(self, requests: Requests) -> None:
        """Own the name and answer. Raises ``BusCallFailed`` where the name is taken or refused, ``BusLost``."""
        self._requests = requests
        self._interfaces = self._described(requests)
        self._bus.serve_tree(Tree(dbus_names.OBJECT_PATH, self).answer)
        requests.watch(self._mirror.touch)
        self._mirror.touch()
        await self._bus.request_name(dbus_names.BUS_NAME)

    # Objects ----------------------------------------------------------------------------------------------

    def _described(self, requests: Requests) -> dict[str, tuple[Interface, ...]]:
        asking = Asking(self._bus, requests, self._guard, self._current_file, self._going_now)
        looking = {
            dbus_names.GET_STATE: Method(args(""), args("state:a{sv}"), self._get_state),
            dbus_names.GET_DISKS: Method(args(""), args("disks:aa{sv}"), self._get_disks),
            dbus_names.GET_HISTORY: Method(args("disk:s number:u failed:b"), args("runs:aa{sv}"), self._get_history),
        }
        manager = Interface(
            name=dbus_names.MANAGER,
            methods={**looking, **asking.of_manager()},
            properties=dbus_values.MANAGER_PROPERTIES,
            constant=frozenset({"Version"}),
            signals=_SIGNALS,
        )
        disk = Interface(name=dbus_names.DISK, methods=asking.of_disk(), properties=dbus_values.DISK_PROPERTIES)
        run = Interface(name=dbus_names.RUN, methods=asking.of_run(), properties=dbus_values.RUN_PROPERTIES)
        return {"": (manager,), dbus_names.DISKS: (disk,), dbus_names.RUNS: (run,)}

    def interfaces(self, path: str) -> tuple[Interface, ...]:
        """What an object at this path has."""
        if path == dbus_names.OBJECT_PATH:
            return self._interfaces[""]
        kinds = (dbus_names.DISKS, dbus_names.RUNS)
        return next((self._interfaces[kind] for kind in kinds if dbus_names.name_of(kind, path)), ())

    async def values(self, path: str) -> Values | None:
        """The properties of one object; also of a run that is not among those that are listed."""
        listed = await self.listed()
        run_id = dbus_names.name_of(dbus_names.RUNS, path)
        if path in listed or run_id is None:
            return listed.get(path)
        report = await self._report(run_id)
        return {dbus_names.RUN: dbus_values.of_run(report)} if report is not None else None

    async def listed(self) -> Everything:
        """The manager, every disk, and the newest runs. Raises ``BusCallFailed``."""
        return await answered(self._mirror.now())

    async def _everything(self) -> Everything:
        assert self._requests is not None
        going = self._going  # should it end meanwhile: what is read of the history may be older than that
        disks = await self._requests.disks()
        runs = await self._requests.runs("", RUNS_LISTED, failed=False)
        found: dict[str, Values] = {dbus_names.OBJECT_PATH: {dbus_names.MANAGER: self._manager()}}
        found |= {_disk_path(one.uuid): {dbus_names.DISK: dbus_values.of_disk(one)} for one in disks}
        found |= {_run_path(one.run_id): {dbus_names.RUN: dbus_values.of_run(one)} for one in runs}
        for one in (going, self._going):
            if one is not None:
                found.setdefault(_run_path(one.run_id), {dbus_names.RUN: dbus_values.of_going(one)})
        return found

    def _manager(self) -> dict[str, Any]:
        current = _run_path(self._going.run_id) if self._going is not None else "/"
        return {"Version": self._version, "Running": self._going is not None, "CurrentRun": current}

    async def _report(self, run_id: str) -> RunReport | None:
        assert self._requests is not None
        try:
            async with self._reading:
                return await self._requests.report(run_id)
        except BackupError:
            return None

    # What everybody may ask -------------------------------------------------------------------------------

    async def _get_state(self, call: Call) -> Sequence[Any]:
        del call
        return [variants(self._state)]

    async def _get_disks(self, call: Call) -> Sequence[Any]:
        del call
        (interface,) = self._interfaces[dbus_names.DISKS]
        listed = (await self.listed()).values()
        return [[interface.typed(values[interface.name]) for values in listed if interface.name in values]]

    async def _get_history(self, call: Call) -> Sequence[Any]:
        assert self._requests is not None
        disk, number, failed = call.body
        async with self._reading:
            reports = await answered(self._requests.runs(disk, number, failed=failed))
        runs = [dbus_values.of_run(report) for report in reports]
        going = self._going
        if going is not None and not failed and _is_meant(disk, going.disk) and going.run_id not in _ids(reports):
            runs = [dbus_values.of_going(going), *runs][:number]
        (interface,) = self._interfaces[dbus_names.RUNS]
        return [[interface.typed(dbus_values.entry(run)) for run in runs]]

    def _current_file(self) -> str:
        return self._going.progress.current if self._going is not None and self._going.progress is not None else ""

    def _going_now(self) -> tuple[str, str] | None:
        return (self._going.run_id, self._going.disk.uuid) if self._going is not None else None

    # What is told -----------------------------------------------------------------------------------------

    def started(self, run_id: str, disk: Disk) -> None:
        """A run begins."""
        fields = {
            "run": run_id,
            "disk": disk.name,
            "uuid": disk.uuid,
            "headline": messages.started_line(disk.name),
            "shown": self._desktop().progress,
        }
        self._state = {"running": True, **fields}
        self._going = Going(run_id, disk, self._now())
        how = self._requests.going(disk) if self._requests is not None else None
        if how is not None:
            self._going.mode, self._going.trigger = how
        self._emit(dbus_names.RUN_STARTED, fields)
        self._touch()

    def progress(self, progress: Progress) -> None:
        """A run goes on: two signals a second at most. A plan, which is no run, is told to whoever waits for it alone."""
        if self._going is None:
            return
        values = dbus_values.of_progress(progress)
        self._state = {**self._state, **_fields(progress, values)}
        self._going.progress = progress
        self._paced.do(lambda: self._tell_progress(progress, values))

    def _tell_progress(self, progress: Progress, values: Mapping[str, Any]) -> None:
        self._emit(dbus_names.RUN_PROGRESS, _fields(progress, values))
        self._mirror.set(_run_path(progress.run_id), dbus_names.RUN, values)

    def finished(self, report: RunReport) -> None:
        """A run is over."""
        self._paced.drop()
        self._going = None
        self._state = {"running": False}
        message = messages.outcome_message(report)
        self._emit(
            dbus_names.RUN_FINISHED,
            {
                "run": report.run_id,
                "disk": report.disk.name,
                "uuid": report.disk.uuid,
                "outcome": report.outcome.value,
                "safe_to_unplug": report.safe_to_unplug,
                "headline": message.headline,
                "body": "\n".join(message.lines),
                "todo": "\n".join(message.todo),
                "findings": [finding.code for finding in report.findings],
                "shown": report.outcome in self._desktop().on,
            },
        )
        self._touch()

    def disk_removed(self, uuid: str, disk_name: str) -> None:
        """A disk was unplugged."""
        self._emit(dbus_names.DISK_REMOVED, {"uuid": uuid, "disk": disk_name})

    def notice(self, notice: Notice) -> None:
        """Something to know outside of a run."""
        fields = {
            "notice": notice.notice_id,
            "kind": notice.kind.value,
            "headline": notice.headline,
            "body": "\n".join(notice.lines),
            "todo": "\n".join(notice.todo),
            "uuid": notice.disk_uuid,
            "disk": notice.disk_name,
        }
        self._emit(dbus_names.NOTICE, fields)

    def _touch(self) -> None:
        if self._requests is not None:
            self._mirror.touch()

    def _emit(self, member: str, fields: Mapping[str, Any]) -> None:
        self._bus.emit(dbus_names.OBJECT_PATH, dbus_names.MANAGER, member, "a{sv}", [variants(fields)])


def _version() -> str:
    try:
        return version("immich-usb-backup")
    except PackageNotFoundError:  # a checkout that is not installed
        return ""


def _fields(progress: Progress, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ``RunProgress``."""
    return {
        "run": progress.run_id,
        "disk": progress.disk_name,
        "stage": values["Stage"],
        "percent": values["Percent"],
        "done": values["Done"],
        "total": values["Total"],
        "rate": values["Rate"],
        "seconds_left": values["SecondsLeft"],
        "line": values["Line"],
    }


def _ids(reports: Sequence[RunReport]) -> set[str]:
    """A run that has just been written down is among them while it still goes on."""
    return {report.run_id for report in reports}


def _is_meant(wanted: str, disk: Disk) -> bool:
    return not wanted or wanted in {disk.name, disk.label, disk.device_node} or wanted.lower() == disk.uuid.lower()


def _disk_path(uuid: str) -> str:
    return dbus_names.path_of(dbus_names.DISKS, uuid)


def _run_path(run_id: str) -> str:
    return dbus_names.path_of(dbus_names.RUNS, run_id)
