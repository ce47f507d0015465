"""``immich-usb-backup retry``: have the service try again what an earlier run did not bring to the disk."""

from __future__ import annotations

import argparse
import asyncio

from immich_usb_backup import dbus_names
from immich_usb_backup.cli.asking import Unanswered, add_run, add_wait
from immich_usb_backup.cli.following import begin
from immich_usb_backup.cli.records import find_alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_run(parser)
    add_wait(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask for it. 75 when there is no such run, or its disk is not here; with ``--wait`` 1 when it did not end well."""
    try:
        run_id = asyncio.run(find_alone(arguments.run))
    except Unanswered as error:
        return error.show()
    return begin(dbus_names.RETRY, run_id, wait=arguments.wait)
