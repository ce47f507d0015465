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

_PLACE = (dbus_names.BUS_NAME, dbus_names.OBJECT_PATH, dbus_names.MANAGER)
_DBUS_ERROR = "org.freedesktop.DBus.Error"
_IS_IT_RUNNING = "Is the service running? See: systemctl status immich-usb-backup"
_NOT_RUNNING = {"ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected"}
_OTHER_VERSION = {"UnknownMethod", "UnknownInterface", "UnknownObject", "InvalidArgs"}


class Unanswered(BackupError):
    """The service did not do what it was asked for. ``exit_code`` is what the command ends with."""

    code = "unanswered"

    def __init__(self, exit_code: ExitCode, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code

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


def disk_of(arguments: argparse.Namespace) -> str:
    """The disk that is meant; a link such as those in /dev/disk/by-label as the device node that it leads to."""
    disk = str(arguments.disk)
    return os.path.realpath(disk) if disk.startswith("/dev/") else disk


def ask(member: str, *words: str, timeout: float = CALL_SECONDS) -> Any:
    """The service's answer to one question. Raises ``Unanswered``, ``BusLost``, ``DeadlineMissed`` (seconds)."""
    try:
        return asyncio.run(_call(member, _sendable(words), timeout))
    except BusCallFailed as error:
        raise _unanswered(error) from error


async def _call(member: str, words: list[str], timeout: float) -> Any:
    bus = await Bus.system()
    try:
        (answer,) = await bus.call(*_PLACE, member, "s" * len(words), words, timeout=timeout)
    finally:
        await bus.close()
    return answer


async def ask_on(bus: Bus, member: str, *words: str) -> tuple[Any, ...]:
    """The service's answers to one question, on a connection that stays open. Raises ``Unanswered``, ``BusLost``,
    ``DeadlineMissed``."""
    try:
        return await bus.call(*_PLACE, member, "s" * len(words), _sendable(words))
    except BusCallFailed as error:
        raise _unanswered(error) from error


def _sendable(words: Sequence[str]) -> list[str]:
    return [word.encode("utf-8", "replace").decode() for word in words]


def _unanswered(error: BusCallFailed) -> Unanswered:
    family, _, kind = error.name.rpartition(".")
    message = harmless(error.message)
    if family == dbus_names.ERROR:
        return Unanswered(ExitCode.NOT_HERE if kind == Refusal.NO_SUCH_DISK else ExitCode.PROBLEM, message)
    if family != _DBUS_ERROR:
        return Unanswered(ExitCode.PROBLEM, message)
    if kind == "AccessDenied":
        return Unanswered(ExitCode.PROBLEM, "You may not ask the service for this", hint="Run it with sudo.")
    if kind in _NOT_RUNNING:
        return Unanswered(ExitCode.UNAVAILABLE, "The service does not answer", hint=_IS_IT_RUNNING)
    if kind in _OTHER_VERSION:
        hint = "Restart it: sudo systemctl restart immich-usb-backup"
        return Unanswered(ExitCode.UNAVAILABLE, "The service that runs is of another version", hint=hint)
    return Unanswered(ExitCode.PROBLEM, message)
