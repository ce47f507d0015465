"""``immich-usb-backup history``: the last runs, newest first."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from immich_usb_backup import messages
from immich_usb_backup.adapters import report_json
from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.cli.paths import state_folder
from immich_usb_backup.errors import NotAllowed
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import moment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--state", type=Path, help="folder with the history; default: /var/lib/immich-usb-backup")
    parser.add_argument("-n", "--number", type=int, default=10, help="how many runs; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="for programs: whole reports")


def run(arguments: argparse.Namespace) -> int:
    """Print them."""
    history = SqliteHistory(state_folder(arguments.state) / "state.db")
    readable = history.readable()
    if readable is False:
        raise NotAllowed("You may not read the history")
    reports = asyncio.run(history.runs(arguments.number)) if readable else ()
    if arguments.json:
        print(json.dumps([json.loads(report_json.dump(report)) for report in reports], indent=2))
        return ExitCode.OK
    for report in reports:
        message = messages.outcome_message(report)
        print(f"{moment(report.started)}  {message.headline}  [{report.run_id}]")
        for line in (*message.lines, *(f"To do: {todo}" for todo in message.todo)):
            print(f"    {line}")
    if not reports:
        print("There has been no run yet.")
    return ExitCode.OK
