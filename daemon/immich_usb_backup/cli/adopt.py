"""``immich-usb-backup adopt``: let this server take over a disk that carries another server's backup."""

from __future__ import annotations

import argparse

from immich_usb_backup import dbus_names
from immich_usb_backup.cli.asking import Unanswered, add_disk, ask, disk_of
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_disk(parser)


def run(arguments: argparse.Namespace) -> int:
    """Permit it. 75 when the disk is neither here nor known."""
    try:
        name = ask(dbus_names.ADOPT, disk_of(arguments))
    except Unanswered as error:
        return error.show()
    print(f"'{printable(str(name))}' may be taken over: the next backup makes it this server's.")
    print("It begins now where the disk is plugged in, else when it is plugged in.")
    return ExitCode.OK
