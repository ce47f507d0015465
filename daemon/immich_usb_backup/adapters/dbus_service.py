"""The daemon's face on the system bus: what goes on as signals, the state for who comes later, and what may be asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from immich_usb_backup import dbus_names, messages
from immich_usb_backup.adapters import plan_json
from immich_usb_backup.adapters.bus import Bus, ServedMethod, sendable, variants
from immich_usb_backup.adapters.watchers import RateLimit
from immich_usb_backup.config import Desktop
from immich_usb_backup.errors import BackupError, BusCallFailed
from immich_usb_backup.model import Disk, Progress, RunReport
from immich_usb_backup.policy.text import harmless, sentence
from immich_usb_backup.requests import Refusal, Refused, Requests

T = TypeVar("T")

SIGNAL_SECONDS = 0.5

_INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
_XML = f"""<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
  <interface name="{dbus_names.MANAGER}">
    <method name="{dbus_names.GET_STATE}"><arg name="state" type="a{{sv}}" direction="out"/></method>
    <method name="{dbus_names.PLAN}">
      <arg name="disk" type="s" direction="in"/>
      <arg name="mode" type="s" direction="in"/>
      <arg name="plan" type="s" direction="out"/>
    </method>
    <method name="{dbus_names.BACKUP}">
      <arg name="disk" type="s" direction="in"/>
      <arg name="mode" type="s" direction="in"/>
      <arg name="name" type="s" direction="out"/>
    </method>
    <method name="{dbus_names.VERIFY}">
      <arg name="disk" type="s" direction="in"/>
      <arg name="what" type="s" direction="in"/>
      <arg name="name" type="s" direction="out"/>
      <arg name="uuid" type="s" direction="out"/>
    </method>
    <method name="{dbus_names.EJECT}">
      <arg name="disk" type="s" direction="in"/>
      <arg name="name" type="s" direction="out"/>
    </method>
    <method name="{dbus_names.APPROVE}">
      <arg name="disk" type="s" direction="in"/>
      <arg name="deletions" type="u" direction="out"/>
    </method>
    <method name="{dbus_names.ADOPT}">
      <arg name="disk" type="s" direction="in"/>
      <arg name="name" type="s" direction="out"/>
    </method>
    <signal name="{dbus_names.RUN_STARTED}"><arg name="run" type="a{{sv}}"/></signal>
    <signal name="{dbus_names.RUN_PROGRESS}"><arg name="progress" type="a{{sv}}"/></signal>
    <signal name="{dbus_names.RUN_FINISHED}"><arg name="report" type="a{{sv}}"/></signal>
    <signal name="{dbus_names.DISK_REMOVED}"><arg name="disk" type="a{{sv}}"/></signal>
  </interface>
  <interface name="{_INTROSPECTABLE}">
    <method name="Introspect"><arg name="xml" type="s" direction="out"/></method>
  </interface>
</node>
"""


class DaemonOnBus:
    """The ``Watchers`` port as D-Bus signals, ``GetState``, and a person's requests as methods."""

    def __init__(self, bus: Bus, desktop: Callable[[], Desktop], monotonic: Callable[[], float]) -> None:
        self._bus = bus
        self._desktop = desktop
        self._limit = RateLimit(SIGNAL_SECONDS, monotonic)
        self._state: dict[str, Any] = {"running": False}

    async def start(self, requests: Requests) -> None:
        """Own the name and answer. Raises ``BusCallFailed`` where the name is taken or refused, ``BusLost``."""
        methods = {dbus_names.GET_STATE: ServedMethod("", "a{sv}", self._get_state), **_asking(requests)}
        self._bus.serve(dbus_names.OBJECT_PATH, dbus_names.MANAGER, methods)
        introspect = {"Introspect": ServedMethod("", "s", _introspect)}
        self._bus.serve(dbus_names.OBJECT_PATH, _INTROSPECTABLE, introspect)
        await self._bus.request_name(dbus_names.BUS_NAME)

    async def _get_state(self) -> Sequence[Any]:
        return [variants(self._state)]

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
        self._emit(dbus_names.RUN_STARTED, fields)

    def progress(self, progress: Progress) -> None:
        """A run goes on: two signals a second at most."""
        fields = {
            "run": progress.run_id,
            "disk": progress.disk_name,
            "stage": progress.stage.value,
            "percent": -1 if progress.percent is None else progress.percent,
            "done": progress.done,
            "total": progress.total,
            "rate": -1 if progress.rate is None else int(progress.rate),
            "seconds_left": -1 if progress.seconds_left is None else int(progress.seconds_left),
            "line": messages.progress_line(progress),
        }
        self._state = {**self._state, **fields}
        if self._limit.allows(progress.stage):
            self._emit(dbus_names.RUN_PROGRESS, fields)

    def finished(self, report: RunReport) -> None:
        """A run is over."""
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
                "shown": report.outcome in self._desktop().on,
            },
        )

    def disk_removed(self, uuid: str, disk_name: str) -> None:
        """A disk was unplugged."""
        self._emit(dbus_names.DISK_REMOVED, {"uuid": uuid, "disk": disk_name})

    def _emit(self, member: str, fields: Mapping[str, Any]) -> None:
        self._bus.emit(dbus_names.OBJECT_PATH, dbus_names.MANAGER, member, "a{sv}", [variants(fields)])


async def _introspect() -> Sequence[Any]:
    return [_XML]


def _asking(requests: Requests) -> Mapping[str, ServedMethod]:
    async def plan(disk: str, mode: str) -> Sequence[Any]:
        return [plan_json.dump(await _answered(requests.plan(disk, mode)))]

    async def backup(disk: str, mode: str) -> Sequence[Any]:
        return [sendable(await _answered(requests.backup(disk, mode)))]

    async def verify(disk: str, what: str) -> Sequence[Any]:
        chosen = await _answered(requests.verify(disk, what))
        return [sendable(chosen.name), sendable(chosen.uuid)]

    async def eject(disk: str) -> Sequence[Any]:
        return [sendable(await _answered(requests.eject(disk)))]

    async def approve(disk: str) -> Sequence[Any]:
        return [await _answered(requests.approve(disk))]

    async def adopt(disk: str) -> Sequence[Any]:
        return [sendable(await _answered(requests.adopt(disk)))]

    return {
        dbus_names.PLAN: ServedMethod("ss", "s", plan, ends_with_caller=True),
        dbus_names.BACKUP: ServedMethod("ss", "s", backup),
        dbus_names.VERIFY: ServedMethod("ss", "ss", verify),
        dbus_names.EJECT: ServedMethod("s", "s", eject),
        dbus_names.APPROVE: ServedMethod("s", "u", approve),
        dbus_names.ADOPT: ServedMethod("s", "s", adopt),
    }


async def _answered(work: Awaitable[T]) -> T:
    """Raises ``BusCallFailed`` with a name of ours and a plain message."""
    try:
        return await work
    except BackupError as error:
        why = error.why if isinstance(error, Refused) else Refusal.FAILED
        raise BusCallFailed(f"{dbus_names.ERROR}.{why}", harmless(sentence(error.message, error.hint))) from error
