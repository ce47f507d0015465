"""``immich-usb-backup status``: whether the photos are safe, the disks that have them, and how far a backup is."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.cli.asking import Unanswered, look
from immich_usb_backup.cli.following import Follow, watch
from immich_usb_backup.cli.records import disks_of
from immich_usb_backup.cli.shown import shown_on
from immich_usb_backup.cli.terminal import Terminal
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.cells import Tone, line
from immich_usb_backup.policy.progress_words import live_lines
from immich_usb_backup.policy.status_words import safety, status_lines
from immich_usb_backup.policy.views import DiskView, Going, going

_WAITING = "Waiting for the next backup. Ctrl+C ends only this command."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("-f", "--follow", action="store_true", help="show a backup until it is over, or wait for one")
    parser.add_argument("--json", action="store_true", help="for programs; with --follow a line for each change")


def run(arguments: argparse.Namespace) -> int:
    """Print it. 0 when the photos are safe, 1 when not; with ``--follow`` 0 when the backup ended well, 1 when not."""
    try:
        return asyncio.run(_status(arguments))
    except Unanswered as error:
        return error.show()


async def _status(arguments: argparse.Namespace) -> int:
    bus, terminal = await Bus.system(), Terminal()
    try:
        if arguments.follow:
            return await _follow(bus, terminal, as_json=arguments.json)
        now_running, disks = going(await look(bus, dbus_names.GET_STATE)), await disks_of(bus)
    finally:
        await bus.close()
    now = datetime.now(UTC)
    if arguments.json:
        print(json.dumps(_as_json(now_running, disks, now), indent=2))
    else:
        _print(terminal, now_running, disks, now)
    return ExitCode.OK if safety(disks, now).safe else ExitCode.PROBLEM


def _print(terminal: Terminal, running: Going | None, disks: Sequence[DiskView], now: datetime) -> None:
    if running is not None:
        terminal.say(*live_lines(running, terminal.columns), ())
    terminal.say(*status_lines(disks, now, terminal.columns))


async def _follow(bus: Bus, terminal: Terminal, *, as_json: bool) -> int:
    shown = shown_on(terminal, as_json=as_json)
    follow = Follow(bus, shown)
    async with follow.listening():
        running = going(await look(bus, dbus_names.GET_STATE))
        if running is None and not as_json:
            terminal.say(*status_lines(await disks_of(bus), datetime.now(UTC), terminal.columns))
            terminal.say((), line(_WAITING, Tone.DIM))
        return await watch(follow, shown)


def _as_json(running: Going | None, disks: Sequence[DiskView], now: datetime) -> dict[str, Any]:
    judged = safety(disks, now)
    return {
        "safe": judged.safe,
        "summary": judged.sentence,
        "running": asdict(running) if running else None,
        "disks": [disk_json(disk) for disk in disks],
    }


def disk_json(disk: DiskView) -> dict[str, Any]:
    """A disk for programs: times in ISO 8601, null where there is none."""
    values = asdict(disk)
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}
