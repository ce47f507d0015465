"""``immich-usb-backup enroll``: make the marker on a disk, by which this server knows it again."""

from __future__ import annotations

import argparse

from immich_usb_backup import dbus_names
from immich_usb_backup.cli.asking import Unanswered, ask, resolved
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import printable

_ANSWER_SECONDS = 600.0
"""A disk that sleeps has to spin up, a desktop may have to let go of it, and the unmount writes everything out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("device", metavar="DEVICE", help="a disk that is plugged in: device node, label or UUID")
    parser.add_argument("--name", default="", help="what it is to be called; default: as it is called now")


def run(arguments: argparse.Namespace) -> int:
    """Have it made. 75 when the disk is not here or not eligible."""
    try:
        answer = ask(dbus_names.ENROLL, resolved(arguments.device), arguments.name, timeout=_ANSWER_SECONDS)
    except Unanswered as error:
        return error.show()
    name = printable(str(answer))
    print(f"'{name}' is enrolled on this server, and unmounted: safe to unplug.")
    print("Its first backup begins when it is plugged in again, or now with: sudo immich-usb-backup backup DISK")
    return ExitCode.OK
