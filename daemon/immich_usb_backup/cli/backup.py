"""``immich-usb-backup backup``: have the service back up to a disk that is plugged in, though it had its run."""

from __future__ import annotations

import argparse

from immich_usb_backup import dbus_names
from immich_usb_backup.cli.asking import Unanswered, add_disk, add_mode, ask, disk_of
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_disk(parser)
    add_mode(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask for it. 75 when the disk is not here."""
    try:
        name = ask(dbus_names.BACKUP, disk_of(arguments), arguments.mode)
    except Unanswered as error:
        return error.show()
    print(f"The backup to '{printable(str(name))}' begins as soon as nothing else is under way.")
    print("Leave the disk plugged in. Watch it: journalctl -u immich-usb-backup -f")
    return ExitCode.OK
