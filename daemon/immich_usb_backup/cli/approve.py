"""``immich-usb-backup approve``: let the deletions go ahead that the service holds back for a disk."""

from __future__ import annotations

import argparse

from immich_usb_backup import dbus_names
from immich_usb_backup.cli.asking import Unanswered, add_disk, ask, disk_of
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_disk(parser)


def run(arguments: argparse.Namespace) -> int:
    """Approve them. 1 when nothing was held, 75 when the disk is neither here nor known."""
    try:
        approved = int(ask(dbus_names.APPROVE, disk_of(arguments)))
    except Unanswered as error:
        return error.show()
    if not approved:
        print("Nothing is held back for this disk: there is nothing to approve.")
        return ExitCode.PROBLEM
    print(f"{counted(approved, 'deletion')} approved.")
    print("The next backup to this disk moves these files to the folder deleted on it, and no others.")
    print("It begins now where the disk is plugged in, else when it is plugged in.")
    return ExitCode.OK
