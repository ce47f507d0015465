"""``immich-usb-backup cancel``: end the backup that goes on, or one that waits."""

from __future__ import annotations

import argparse

from immich_usb_backup import dbus_names
from immich_usb_backup.cli.asking import Unanswered, ask, resolved
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("disk", nargs="?", default="", metavar="DISK", help="default: whatever goes on")


def run(arguments: argparse.Namespace) -> int:
    """Ask for it. 1 when nothing goes on, 75 when the disk is not here."""
    try:
        name = ask(dbus_names.CANCEL, resolved(arguments.disk))
    except Unanswered as error:
        return error.show()
    print(f"The backup to '{printable(str(name))}' is being stopped. What is on the disk stays there.")
    print("Do not unplug it yet: it is safe when 'immich-usb-backup status' no longer shows the backup.")
    return ExitCode.OK
