"""``immich-usb-backup make-timers``: a timer for each disk that has a schedule. systemd's generator runs it, at each boot and
``systemctl daemon-reload``, when hardly anything else is there: it loads little, and never stands in the way of a boot."""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.schedule import normalised, timer_name, timer_text
from immich_usb_backup.policy.text import printable

_CONFIG = "/etc/immich-usb-backup/config.toml"
_LONGEST = 1_000_000
_WANTS = "timers.target.wants"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("folder", type=Path, help="where the timers are written to")
    parser.add_argument("others", nargs="*", help="systemd names two more folders; they are not used")
    parser.add_argument("--config", type=Path, default=Path(_CONFIG), help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Write them. 1 where a schedule cannot be used: the others are written all the same."""
    good = True
    for disk, schedule in _schedules(_read(arguments.config)):
        problem = _write(arguments.folder, disk, schedule)
        good = good and not problem
        if problem:
            print(f"immich-usb-backup: no timer for the disk '{printable(disk)}': {problem}", file=sys.stderr)
    return ExitCode.OK if good else ExitCode.PROBLEM


def _read(path: Path) -> dict[str, Any]:
    """The whole configuration; nothing where there is none, or one that cannot be read: the service says what is wrong."""
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(_LONGEST).decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        print(f"immich-usb-backup: no timers: {path} cannot be used: {printable(str(error))}", file=sys.stderr)
        return {}


def _schedules(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    disks = config.get("disk")
    for name, values in disks.items() if isinstance(disks, dict) else ():
        schedule = values.get("schedule", "") if isinstance(values, dict) else ""
        if isinstance(schedule, str) and schedule.strip():
            yield name, schedule


def _write(folder: Path, disk: str, schedule: str) -> str:
    """Write one timer, and have it started at boot. Returns what is wrong, in words."""
    name = timer_name(disk)
    if name is None:
        return "its name is too long, or cannot be in the name of a unit: use its UUID"
    try:
        text = timer_text(normalised(schedule))
        (folder / _WANTS).mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / _WANTS / name).symlink_to(f"../{name}")
    except (ValueError, OSError) as error:
        return str(error)
    return ""
