"""``immich-usb-backup verify``: have the service read back what is on a disk, and show how far it is."""

from __future__ import annotations

import argparse
import asyncio

from immich_usb_backup import dbus_names
from immich_usb_backup.cli.asking import Unanswered, add_disk, disk_of
from immich_usb_backup.cli.following import ask_and_watch
from immich_usb_backup.model import Rereading
from immich_usb_backup.policy.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_disk(parser)
    parser.add_argument("--all", action="store_true", help="every file, whenever it was read last")


def run(arguments: argparse.Namespace) -> int:
    """Ask for it, and watch. 1 when not everything is well; 75 when the disk is not here."""
    what = Rereading.ALL if arguments.all else Rereading.DUE
    try:
        return asyncio.run(ask_and_watch(dbus_names.VERIFY, disk_of(arguments), what, said=_said))
    except Unanswered as error:
        return error.show()


def _said(name: str) -> None:
    print(f"Verifying '{printable(name)}'. Ctrl+C ends only this command; to end the verification too, run:")
    print("  sudo immich-usb-backup eject DISK", flush=True)
