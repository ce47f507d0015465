"""How the commands ask the service: one call on the system bus, and every refusal turned into a message and an exit code."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters.bus import CALL_SECONDS, Bus
from immich_usb_backup.errors import BackupError, BusCallFailed
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import Mode
from immich_usb_backup.policy.text import harmless
from immich_usb_backup.requests import Refusal

ASK_SECONDS = 330.0
"""Somebody may have to give a password first."""

_PLACE = (dbus_names.BUS_NAME, dbus_names.OBJECT_PATH, dbus_names.MANAGER)
_DBUS_ERROR = "org.freedesktop.DBus.Error"
_IS_IT_RUNNING = "Is the service running? See: systemctl status immich-usb-backup"
_NOT_RUNNING = {"ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected"}
_NOT_HERE = {Refusal.NO_SUCH_DISK, Refusal.NO_SUCH_RUN}
_OTHER_VERSION = {"UnknownMethod", "UnknownInterface", "UnknownObject", "InvalidArgs"}


class Unanswered(BackupError):
    """The service did not do what it was asked for. ``exit_code`` is what the command ends with; ``why`` is the
    ``Refusal``, where the service has given one."""

    code = "unanswered"

    def __init__(self, exit_code: ExitCode, message: str, *, hint: str = "", why: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.why = why

    def show(self) -> ExitCode:
        """Print it; the command's exit code."""
        for line in filter(None, (self.message, self.hint)):
            print(f"immich-usb-backup: {line}", file=sys.stderr)
        return self.exit_code


def add_disk(parser: argparse.ArgumentParser) -> None:
    """The argument that says which disk is meant."""
    parser.add_argument("disk", metavar="DISK", help="its name, label, UUID or device node")


def add_mode(parser: argparse.ArgumentParser) -> None:
    """The option that says how a run shall go."""
    modes = [mode.value for mode in Mode]
    parser.add_argument("--mode", choices=modes, default="", help="default: as it is configured for the disk")


def add_run(parser: argparse.ArgumentParser, *, default: str = "") -> None:
    """The argument that says which run is meant; without a default it must be given."""
    text = "its id or the beginning of it, 'last', or a disk for its last run"
    if default:
        parser.add_argument("run", nargs="?", default=default, metavar="RUN", help=f"{text}; default: %(default)s")
    else:
        parser.add_argument("run", metavar="RUN", help=text)


def add_wait(parser: argparse.ArgumentParser) -> None:
    """The option to stay until the run is over."""
    parser.add_argument("--wait", action="store_true", help="show how far it is, and end with its outcome")


def disk_of(arguments: argparse.Namespace) -> str:
    """The disk that is meant."""
    return resolved(str(arguments.disk))


def resolved(disk: str) -> str:
    """A link such as those in /dev/disk/by-label as the device node that it leads to; everything else as it is."""
    return os.path.realpath(disk) if disk.startswith("/dev/") else disk


def ask(member: str, *words: str, timeout: float = ASK_SECONDS) -> Any:
    """The service's answer to one question. Raises ``Unanswered``, ``BusLost``, ``DeadlineMissed`` (seconds)."""
    try:
        return asyncio.run(_call(member, _sendable(words), timeout))
    except BusCallFailed as error:
        raise _unanswered(error) from error


async def _call(member: str, words: list[str], timeout: float) -> Any:
    bus = await Bus.system()
    try:
        (answer,) = await bus.call(*_PLACE, member, "s" * len(words), words, timeout=timeout, interactive=True)
    finally:
        await bus.close()
    return answer


async def ask_on(bus: Bus, member: str, *words: str) -> tuple[Any, ...]:
    """The service's answers to one question, on a connection that stays open. Raises ``Unanswered``, ``BusLost``,
    ``DeadlineMissed``."""
    try:
        return await bus.call(
            *_PLACE, member, "s" * len(words), _sendable(words), timeout=ASK_SECONDS, interactive=True
        )
    except BusCallFailed as error:
        raise _unanswered(error) from error


async def look(bus: Bus, member: str, signature: str = "", *values: Any, timeout: float = CALL_SECONDS) -> Any:
    """What the service answers to who only looks: nobody is asked for a password. Raises like ``ask_on``."""
    body = [_sendable([value])[0] if isinstance(value, str) else value for value in values]
    try:
        (answer,) = await bus.call(*_PLACE, member, signature, body, timeout=timeout)
    except BusCallFailed as error:
        raise _unanswered(error) from error
    return answer


def _sendable(words: Sequence[str]) -> list[str]:
    return [word.encode("utf-8", "replace").decode() for word in words]


def _unanswered(error: BusCallFailed) -> Unanswered:
    family, _, kind = error.name.rpartition(".")
    message = harmless(error.message)
    if family == dbus_names.ERROR:
        return Unanswered(ExitCode.NOT_HERE if kind in _NOT_HERE else ExitCode.PROBLEM, message, why=kind)
    if family != _DBUS_ERROR:
        return Unanswered(ExitCode.PROBLEM, message)
    if kind == "AccessDenied":
        message = "You may not ask the service for this"
        return Unanswered(ExitCode.PROBLEM, message, hint="Run it with sudo.", why=Refusal.NOT_ALLOWED)
    if kind in _NOT_RUNNING:
        return Unanswered(ExitCode.UNAVAILABLE, "The service does not answer", hint=_IS_IT_RUNNING)
    if kind in _OTHER_VERSION:
        hint = "Restart it: sudo systemctl restart immich-usb-backup"
        return Unanswered(ExitCode.UNAVAILABLE, "The service that runs is of another version", hint=hint)
    return Unanswered(ExitCode.PROBLEM, message)
