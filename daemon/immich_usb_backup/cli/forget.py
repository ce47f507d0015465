"""``immich-usb-backup forget``: no longer expect a disk, and drop what is remembered of its runs."""

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
    """Ask for it. 1 while it is backed up to, 75 when it is not known."""
    try:
        name = ask(dbus_names.FORGET, disk_of(arguments))
    except Unanswered as error:
        return error.show()
    print(f"'{printable(str(name))}' is forgotten: its runs are no longer shown, and nobody is reminded of it.")
    print("What is on the disk stays there. Plugged in again, it is backed up to as before.")
    return ExitCode.OK
