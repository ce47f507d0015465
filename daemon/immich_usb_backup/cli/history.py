"""``immich-usb-backup history``: the last runs, newest first."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.cli.asking import Unanswered, resolved
from immich_usb_backup.cli.records import Records, as_json, report_of, runs_of, views_of
from immich_usb_backup.cli.terminal import Terminal
from immich_usb_backup.errors import BusLost
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.run_words import history_lines
from immich_usb_backup.policy.views import RunView


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument(
        "disk", nargs="?", default="", metavar="DISK", help="of this disk only: its name, label or UUID"
    )
    parser.add_argument("--failed", action="store_true", help="only those that did not end well")
    parser.add_argument("-n", "--number", type=int, default=10, help="how many runs; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="for programs: whole reports")
    parser.add_argument("--state", type=Path, help="read the file in this folder, and do not ask the service")


def run(arguments: argparse.Namespace) -> int:
    """Print them. 75 when the disk is not known."""
    try:
        return asyncio.run(_history(arguments))
    except Unanswered as error:
        return error.show()


async def _history(arguments: argparse.Namespace) -> int:
    if arguments.state is None:
        try:
            return await _from_service(arguments)
        except (Unanswered, BusLost) as error:
            if getattr(error, "exit_code", ExitCode.UNAVAILABLE) != ExitCode.UNAVAILABLE or not Records(None).readable:
                raise
    return await _from_file(arguments)


async def _from_service(arguments: argparse.Namespace) -> int:
    bus = await Bus.system()
    try:
        number = max(0, arguments.number)
        runs = await runs_of(bus, resolved(arguments.disk), number + arguments.json, failed=arguments.failed)
        if not arguments.json:
            return _print(runs)
        over = [run.run for run in runs if run.ended][:number]  # one that goes on has no report yet
        return _print_json([await report_of(bus, run) for run in over])
    finally:
        await bus.close()


async def _from_file(arguments: argparse.Namespace) -> int:
    records = Records(arguments.state)
    reports = await records.reports(arguments.disk, max(0, arguments.number), failed=arguments.failed)
    return _print_json([as_json(report) for report in reports]) if arguments.json else _print(views_of(reports))


def _print(runs: list[RunView]) -> int:
    terminal = Terminal()
    terminal.say(*history_lines(runs, datetime.now(UTC), terminal.columns))
    return ExitCode.OK


def _print_json(documents: list[str]) -> int:
    print(json.dumps([json.loads(document) for document in documents], indent=2))
    return ExitCode.OK
