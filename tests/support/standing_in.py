"""A service on the bus that answers what it is told to, for the commands that are its clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters import report_json
from immich_usb_backup.adapters.bus import Bus, variants
from immich_usb_backup.errors import BusCallFailed
from immich_usb_backup.model import RunReport
from immich_usb_backup.policy.views import DiskView, Going, RunView
from tests.support.serving import ServedMethod, serve

NO_SUCH_DISK = f"{dbus_names.ERROR}.NoSuchDisk"
NOT_ALLOWED = f"{dbus_names.ERROR}.NotAllowed"
_PROPERTIES = "org.freedesktop.DBus.Properties"


class StandingIn:
    """Answers with what its attributes hold. ``refused`` has the methods that the caller may not call; ``asked`` is what it
    was asked to do, ``looked`` how often somebody asked what goes on, ``denied``
    how often it was refused."""

    def __init__(self) -> None:
        self.disks: list[DiskView] = []
        self.runs: list[RunView] = []
        self.reports: dict[str, RunReport] = {}
        self.state: dict[str, Any] = {"running": False}
        self.current = ""
        self.refused: set[str] = set()
        self.asked: list[tuple[Any, ...]] = []
        self.looked = 0
        self.denied = 0
        self._bus: Bus | None = None

    async def start(self) -> None:
        """Own the name and answer."""
        self._bus = bus = await Bus.system()
        methods = {
            dbus_names.GET_STATE: ServedMethod("", "a{sv}", self._get_state),
            dbus_names.GET_DISKS: ServedMethod("", "aa{sv}", self._get_disks),
            dbus_names.GET_HISTORY: ServedMethod("sub", "aa{sv}", self._get_history),
            dbus_names.GET_REPORT: ServedMethod("s", "s", self._get_report),
            dbus_names.GET_CURRENT_FILE: ServedMethod("", "s", self._get_current_file),
            dbus_names.VERIFY: ServedMethod("ss", "ss", self._verify),
        }
        for member, signature in {"Backup": "ss", "Cancel": "s", "Forget": "s", "Retry": "s"}.items():
            methods[member] = ServedMethod(signature, "s", self._asking(member))
        serve(bus, dbus_names.OBJECT_PATH, dbus_names.MANAGER, methods)
        for run in self.runs:
            self._serve_run(bus, run)
        await bus.request_name(dbus_names.BUS_NAME)

    async def stop(self) -> None:
        """Be gone from the bus, as after SIGKILL."""
        if self._bus is not None:
            await self._bus.close()
            self._bus = None

    def started(self, now: Going) -> None:
        """A run begins."""
        fields = {"run": now.run, "disk": now.disk, "uuid": now.uuid, "headline": now.headline}
        self.state = {"running": True, **fields}
        self._emit(dbus_names.RUN_STARTED, fields)

    def progress(self, now: Going) -> None:
        """It goes on."""
        fields = {
            "run": now.run,
            "disk": now.disk,
            "stage": now.stage,
            "percent": -1 if now.percent is None else now.percent,
            "done": now.done,
            "total": now.total,
            "rate": -1 if now.rate is None else int(now.rate),
            "seconds_left": -1 if now.seconds_left is None else int(now.seconds_left),
            "line": now.line,
        }
        self.state = {**self.state, **fields}
        self._emit(dbus_names.RUN_PROGRESS, fields)

    def finished(self, run: RunView) -> None:
        """It is over."""
        self.state = {"running": False}
        fields = {
            "run": run.run,
            "disk": run.name,
            "uuid": run.disk,
            "outcome": run.outcome,
            "safe_to_unplug": run.safe_to_unplug,
            "headline": run.headline,
            "body": run.body,
            "todo": run.todo,
        }
        self._emit(dbus_names.RUN_FINISHED, fields)

    def _emit(self, member: str, fields: Mapping[str, Any]) -> None:
        assert self._bus is not None
        self._bus.emit(dbus_names.OBJECT_PATH, dbus_names.MANAGER, member, "a{sv}", [variants(fields)])

    # What it answers --------------------------------------------------------------------------------------

    async def _get_state(self) -> Sequence[Any]:
        self.looked += 1
        return [variants(self.state)]

    async def _get_disks(self) -> Sequence[Any]:
        return [[variants(_camel(disk)) for disk in self.disks]]

    async def _get_history(self, disk: str, number: int, failed: bool) -> Sequence[Any]:
        known = {disk, *(run.disk for run in self.runs if run.name == disk)}
        if disk and not any(run.disk in known for run in self.runs):
            raise BusCallFailed(NO_SUCH_DISK, f"No disk '{disk}' is known.")
        found = [run for run in self.runs if not disk or run.disk in known]
        found = [run for run in found if not failed or run.outcome not in {"ok", ""}]
        return [[variants(_camel(run, without={"body", "todo"})) for run in found[:number]]]

    async def _get_report(self, run: str) -> Sequence[Any]:
        self._check(dbus_names.GET_REPORT)
        if run not in self.reports:
            raise BusCallFailed(f"{dbus_names.ERROR}.NoSuchRun", f"There is no run '{run}'.")
        return [report_json.dump(self.reports[run]).decode()]

    async def _get_current_file(self) -> Sequence[Any]:
        self._check(dbus_names.GET_CURRENT_FILE)
        return [self.current]

    async def _verify(self, disk: str, what: str) -> Sequence[Any]:
        name = (await self._asking(dbus_names.VERIFY)(disk, what))[0]
        return [name, self._meant(disk).uuid]

    def _asking(self, member: str) -> Callable[..., Awaitable[Sequence[Any]]]:
        async def asked(*words: str) -> Sequence[Any]:
            self._check(member)
            self.asked.append((member, *words))
            if member == dbus_names.RETRY:
                return [next(run.name for run in self.runs if run.run == words[0])]
            return [self._meant(words[0]).name]

        return asked

    def _meant(self, wanted: str) -> DiskView:
        for disk in self.disks:
            if wanted in {"", disk.name, disk.uuid}:
                return disk
        raise BusCallFailed(NO_SUCH_DISK, f"No disk '{wanted}' is plugged in.")

    def _check(self, member: str) -> None:
        if member in self.refused:
            self.denied += 1
            raise BusCallFailed(NOT_ALLOWED, "You may not ask for this. Run it with sudo, or join a group.")

    def _serve_run(self, bus: Bus, run: RunView) -> None:
        async def get_all(interface: str) -> Sequence[Any]:
            return [variants(_camel(run))]

        path = dbus_names.path_of(dbus_names.RUNS, run.run)
        serve(bus, path, _PROPERTIES, {"GetAll": ServedMethod("s", "a{sv}", get_all)})


def _camel(view: DiskView | RunView, *, without: set[str] | None = None) -> dict[str, Any]:
    """As the contract names and types it."""
    fields = {name: getattr(view, name) for name in type(view).__slots__ if name not in (without or set())}
    return {_name(name): _value(name, value) for name, value in fields.items()}


def _name(field: str) -> str:
    return "".join(part.capitalize() for part in field.split("_"))


def _value(field: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return int(value.timestamp())
    return 0 if value is None else value
