"""``immich-usb-backup backup``: have the service back up to a disk that is plugged in, though it had its run."""

from __future__ import annotations

import argparse

from immich_usb_backup import dbus_names
from immich_usb_backup.cli.asking import Unanswered, add_disk, add_mode, add_wait, ask, disk_of
from immich_usb_backup.cli.following import begin
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import printable
from immich_usb_backup.requests import Refusal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_disk(parser)
    add_mode(parser)
    add_wait(parser)
    parser.add_argument("--scheduled", action="store_true", help="a disk that is not here, or busy, is no failure")


def run(arguments: argparse.Namespace) -> int:
    """Ask for it. 75 when the disk is not here; with ``--wait`` 1 when it did not end well."""
    if arguments.scheduled:
        return _on_schedule(disk_of(arguments), arguments.mode)
    return begin(dbus_names.BACKUP, disk_of(arguments), arguments.mode, wait=arguments.wait)


def _on_schedule(disk: str, mode: str) -> int:
    """For a timer: a disk that is away, or has its backup just now, is as it should be."""
    try:
        name = ask(dbus_names.BACKUP, disk, mode)
    except Unanswered as error:
        if error.why not in {Refusal.NO_SUCH_DISK, Refusal.BUSY}:
            return error.show()
        print(f"No scheduled backup now: {error.message}")
        return ExitCode.OK
    print(f"The scheduled backup to '{printable(str(name))}' begins as soon as nothing else is under way.")
    return ExitCode.OK
