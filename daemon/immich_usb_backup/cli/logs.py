"""``immich-usb-backup logs``: the lines of one run in the journal, by journalctl."""

from __future__ import annotations

import argparse
import asyncio
import os

from immich_usb_backup.adapters.journal import PREFIX
from immich_usb_backup.cli.asking import Unanswered, add_run
from immich_usb_backup.cli.records import find_alone
from immich_usb_backup.errors import CommandFailed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_run(parser, default="last")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is new")
    parser.add_argument("-o", "--output", default="", help="as journalctl names it, such as cat, verbose or json")


def run(arguments: argparse.Namespace) -> int:
    """Become journalctl. 75 when there is no such run. Raises ``CommandFailed`` where there is no journalctl."""
    try:
        run_id = asyncio.run(find_alone(arguments.run))
    except Unanswered as error:
        return error.show()
    command = ["journalctl", f"{PREFIX}RUN={run_id}"]
    command += ["--follow", "--no-tail"] if arguments.follow else []
    command += [f"--output={arguments.output}"] if arguments.output else []
    try:
        os.execvp(command[0], command)  # noqa: S606  # a list of arguments, without a shell
    except OSError as error:
        raise CommandFailed(f"journalctl cannot be started: {error.strerror}") from error
