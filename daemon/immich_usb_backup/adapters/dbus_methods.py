"""What can be asked for on D-Bus: each method with who may call it, and what answers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters import plan_json, report_json
from immich_usb_backup.adapters.bus import Bus, Call, Caller, sendable
from immich_usb_backup.adapters.dbus_tree import Method, args
from immich_usb_backup.adapters.polkit import Action
from immich_usb_backup.errors import BackupError, BusCallFailed
from immich_usb_backup.model import Trigger
from immich_usb_backup.policy.text import harmless, sentence
from immich_usb_backup.requests import Refusal, Refused, Requests

T = TypeVar("T")


class Guard(Protocol):
    """Who may do what."""

    async def check(self, caller: Caller, action: Action, *, own_user: bool = False) -> int:
        """The caller's user id, if it may. ``own_user``: so may the user that this process runs as. Raises ``Refused``."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A person's requests as methods. ``going`` names the run that goes on, and the UUID of its disk."""

    bus: Bus
    requests: Requests
    guard: Guard
    current_file: Callable[[], str]
    going: Callable[[], tuple[str, str] | None]

    def of_manager(self) -> Mapping[str, Method]:
        """The methods of the manager that need leave."""
        disk = "disk:s"
        return {
            dbus_names.PLAN: _method("disk:s mode:s", "plan:s", self._plan),
            dbus_names.BACKUP: _method("disk:s mode:s", "name:s", lambda call: self._backup(call, *call.body)),
            dbus_names.VERIFY: _method("disk:s what:s", "name:s uuid:s", lambda call: self._verify(call, *call.body)),
            dbus_names.EJECT: _method(disk, "name:s", lambda call: self._eject(call, *call.body)),
            dbus_names.APPROVE: _method(disk, "deletions:u", lambda call: self._approve(call, *call.body)),
            dbus_names.ADOPT: _method(disk, "name:s", self._adopt),
            dbus_names.CANCEL: _method(disk, "name:s", lambda call: self._cancel(call, *call.body)),
            dbus_names.FORGET: _method(disk, "name:s", lambda call: self._forget(call, *call.body)),
            dbus_names.RETRY: _method("run:s", "name:s", lambda call: self._retry(call, *call.body)),
            dbus_names.GET_REPORT: _method("run:s", "report:s", self._report),
            dbus_names.GET_CURRENT_FILE: _method("", "file:s", self._file),
            dbus_names.ENROLL: _method("device:s name:s", "name:s", self._enroll),
            dbus_names.REMIND: _method("", "disks:u", self._remind),
        }

    def of_disk(self) -> Mapping[str, Method]:
        """The same for the disk that an object is."""
        return {
            dbus_names.BACKUP: _method("mode:s", "name:s", lambda call: self._backup(call, _disk(call), *call.body)),
            dbus_names.VERIFY: _method(
                "what:s", "name:s uuid:s", lambda call: self._verify(call, _disk(call), *call.body)
            ),
            dbus_names.CANCEL: _method("", "name:s", lambda call: self._cancel(call, _disk(call))),
            dbus_names.APPROVE: _method("", "deletions:u", lambda call: self._approve(call, _disk(call))),
            dbus_names.EJECT: _method("", "name:s", lambda call: self._eject(call, _disk(call))),
            dbus_names.FORGET: _method("", "name:s", lambda call: self._forget(call, _disk(call))),
        }

    def of_run(self) -> Mapping[str, Method]:
        """The same for the run that an object is."""
        return {
            dbus_names.CANCEL: _method("", "name:s", self._cancel_run),
            dbus_names.RETRY: _method("", "name:s", lambda call: self._retry(call, _run(call))),
        }

    async def _may(self, call: Call, action: Action, *, own_user: bool = False) -> Trigger:
        """Why what follows begins. Raises ``BusCallFailed``."""
        user = await answered(self.guard.check(call.caller, action, own_user=own_user))
        return Trigger.SCHEDULE if own_user and user and user == os.geteuid() else Trigger.ASKED

    async def _plan(self, call: Call) -> Sequence[Any]:
        """Given up when whoever called has left the bus."""
        await self._may(call, Action.INSPECT)
        async with self.bus.while_there(call.caller.name):
            return [plan_json.dump(await answered(self.requests.plan(*call.body)))]

    async def _backup(self, call: Call, disk: str, mode: str) -> Sequence[Any]:
        trigger = await self._may(call, Action.OPERATE, own_user=True)
        return [sendable(await answered(self.requests.backup(disk, mode, trigger=trigger)))]

    async def _verify(self, call: Call, disk: str, what: str) -> Sequence[Any]:
        await self._may(call, Action.OPERATE)
        chosen = await answered(self.requests.verify(disk, what))
        return [sendable(chosen.name), sendable(chosen.uuid)]

    async def _eject(self, call: Call, disk: str) -> Sequence[Any]:
        await self._may(call, Action.OPERATE)
        return [sendable(await answered(self.requests.eject(disk)))]

    async def _approve(self, call: Call, disk: str) -> Sequence[Any]:
        await self._may(call, Action.DECIDE)
        return [await answered(self.requests.approve(disk))]

    async def _adopt(self, call: Call) -> Sequence[Any]:
        await self._may(call, Action.DECIDE)
        return [sendable(await answered(self.requests.adopt(*call.body)))]

    async def _cancel(self, call: Call, disk: str) -> Sequence[Any]:
        await self._may(call, Action.OPERATE)
        return [sendable(await answered(self.requests.cancel(disk)))]

    async def _cancel_run(self, call: Call) -> Sequence[Any]:
        await self._may(call, Action.OPERATE)
        going = self.going()
        if going is None or going[0] != _run(call):
            raise failed(Refused(Refusal.NOT_RUNNING, "This backup does not go on"))
        return [sendable(await answered(self.requests.cancel(going[1])))]

    async def _forget(self, call: Call, disk: str) -> Sequence[Any]:
        await self._may(call, Action.DECIDE)
        return [sendable(await answered(self.requests.forget(disk)))]

    async def _retry(self, call: Call, run_id: str) -> Sequence[Any]:
        await self._may(call, Action.OPERATE)
        return [sendable(await answered(self.requests.retry(run_id)))]

    async def _report(self, call: Call) -> Sequence[Any]:
        await self._may(call, Action.INSPECT)
        return [report_json.dump(await answered(self.requests.report(*call.body))).decode()]

    async def _file(self, call: Call) -> Sequence[Any]:
        await self._may(call, Action.INSPECT)
        return [sendable(self.current_file())]

    async def _enroll(self, call: Call) -> Sequence[Any]:
        await self._may(call, Action.DECIDE)
        return [sendable(await answered(self.requests.enroll(*call.body)))]

    async def _remind(self, call: Call) -> Sequence[Any]:
        await self._may(call, Action.OPERATE, own_user=True)
        return [await answered(self.requests.remind())]


def _method(takes: str, gives: str, handler: Callable[[Call], Awaitable[Sequence[Any]]]) -> Method:
    return Method(args(takes), args(gives), handler)


def _disk(call: Call) -> str:
    """Its UUID; no path of a disk's object is without one."""
    return dbus_names.name_of(dbus_names.DISKS, call.path) or ""


def _run(call: Call) -> str:
    return dbus_names.name_of(dbus_names.RUNS, call.path) or ""


async def answered(work: Awaitable[T]) -> T:
    """Raises ``BusCallFailed`` with a name of ours and a plain message."""
    try:
        return await work
    except BackupError as error:
        raise failed(error) from error


def failed(error: BackupError) -> BusCallFailed:
    """The error as it goes over the bus."""
    why = error.why if isinstance(error, Refused) else Refusal.FAILED
    return BusCallFailed(f"{dbus_names.ERROR}.{why}", harmless(sentence(error.message, error.hint)))
