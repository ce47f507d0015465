"""``immich-usb-backup show``: everything about one run."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime

from immich_usb_backup.adapters import report_json
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.cli.asking import Unanswered, add_run
from immich_usb_backup.cli.records import SEARCHED, find_run, report_of, runs_of, with_words
from immich_usb_backup.cli.terminal import Terminal
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.run_words import report_lines, view_lines
from immich_usb_backup.requests import Refusal

_MORE = "Its files and steps are shown to administrators: sudo immich-usb-backup show"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_run(parser, default="last")
    parser.add_argument("--json", action="store_true", help="for programs: the whole report")


def run(arguments: argparse.Namespace) -> int:
    """Print it. 75 when there is no such run."""
    try:
        return asyncio.run(_show(arguments))
    except Unanswered as error:
        return error.show()


async def _show(arguments: argparse.Namespace) -> int:
    bus = await Bus.system()
    try:
        run_id = await find_run(bus, arguments.run)
        try:
            document = await report_of(bus, run_id)
        except Unanswered as error:
            if arguments.json or error.why not in {Refusal.NOT_ALLOWED, Refusal.NO_SUCH_RUN}:
                raise
            return await _show_less(bus, run_id, error)
    finally:
        await bus.close()
    if arguments.json:
        print(json.dumps(json.loads(document), indent=2))
        return ExitCode.OK
    terminal = Terminal()
    report = report_json.load(document.encode())
    terminal.say(*report_lines(report, datetime.now(UTC), terminal.columns))
    return ExitCode.OK


async def _show_less(bus: Bus, run_id: str, error: Unanswered) -> int:
    """What everybody may know; a run that goes on has no report yet. Raises ``error`` where there is no such run."""
    found = next((one for one in await runs_of(bus, number=SEARCHED) if one.run == run_id), None)
    if found is None:
        raise error
    terminal = Terminal()
    terminal.say(*view_lines(await with_words(bus, found), datetime.now(UTC), terminal.columns))
    if error.why == Refusal.NOT_ALLOWED:
        print(f"{_MORE} {run_id}")
    else:
        print("It goes on. Watch it: immich-usb-backup status --follow")
    return ExitCode.OK
