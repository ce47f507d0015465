"""``immich-usb-backup eject``: have the service let go of a disk, so that it may be unplugged."""

from __future__ import annotations

import argparse

from immich_usb_backup import dbus_names
from immich_usb_backup.cli.asking import Unanswered, add_disk, ask, disk_of
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import printable

_SECONDS = 1800.0
"""A file that was found bad is copied again before the disk is let go."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_disk(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask for it, and wait. 1 while new photos are copied, or another program uses the disk; 75 when it is not here."""
    try:
        name = ask(dbus_names.EJECT, disk_of(arguments), timeout=_SECONDS)
    except Unanswered as error:
        return error.show()
    print(f"'{printable(str(name))}' is unmounted: safe to unplug.")
    return ExitCode.OK
