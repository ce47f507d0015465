"""``immich-usb-backup make-units``: a timer for each disk that has a schedule, a drop-in that opens configured paths where the
service's walls hide them, and one for each other unit that hides the photos from it. systemd's generator runs it, at each boot
and ``systemctl daemon-reload``, when hardly anything else is there: it loads little, and never stands in the way of a boot."""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from immich_usb_backup.adapters.links import every_step, to_open
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.hidden_paths import configured, drop_in, hidden, photos, refused, secret_files
from immich_usb_backup.policy.photo_walls import UNITS, hiding, to_hide
from immich_usb_backup.policy.schedule import normalised, timer_name, timer_text
from immich_usb_backup.policy.text import printable

_CONFIG = "/etc/immich-usb-backup/config.toml"
_LONGEST = 1_000_000
_WANTS = "timers.target.wants"
_NAME = "10-configured-paths.conf"
DROP_IN = f"immich-usb-backup.service.d/{_NAME}"
"""Its place below systemd's folder for generated units; before what people add, which then holds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("folder", type=Path, help="where they are written to")
    parser.add_argument("others", nargs="*", help="systemd names two more folders; they are not used")
    parser.add_argument("--config", type=Path, default=Path(_CONFIG), help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Write them. 1 where a schedule or a path cannot be used: the others are written all the same."""
    config = _read(arguments.config)
    good = _open(arguments.folder, config)
    good = _hide(arguments.folder, config) and good
    for disk, schedule in _schedules(config):
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
        print(
            f"immich-usb-backup: {path} cannot be used, so there are no timers, and no homes are opened: {printable(str(error))}",
            file=sys.stderr,
        )
        return {}


def _open(folder: Path, config: Mapping[str, Any]) -> bool:
    paths = to_open(configured(config))
    for path in refused(paths):
        print(
            f"immich-usb-backup: {printable(path)} stays hidden: it has a character that systemd does not take",
            file=sys.stderr,
        )
    text = drop_in(paths, _secrets(config))
    try:
        if text:
            (folder / DROP_IN).parent.mkdir(parents=True, exist_ok=True)
            (folder / DROP_IN).write_text(text)
    except OSError as error:
        print(f"immich-usb-backup: {', '.join(hidden(paths))} stays hidden: {error}", file=sys.stderr)
        return False
    return not refused(paths)


def _secrets(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The other units' secrets, where the configuration says that they are, and where that leads to."""
    steps = {step: None for path in secret_files(config) for step in every_step(path)}
    return tuple(step for step in steps if not Path(step).is_dir())


def _hide(folder: Path, config: Mapping[str, Any]) -> bool:
    """Hide the photos from all units but the one that is for them."""
    steps = [step for path in photos(config) for step in every_step(path)]
    text = hiding(to_hide(steps, program=os.path.realpath(sys.prefix)))
    try:
        for unit in UNITS if text else ():
            (folder / f"{unit}.d").mkdir(parents=True, exist_ok=True)
            (folder / f"{unit}.d" / _NAME).write_text(text)
    except OSError as error:
        print(f"immich-usb-backup: the photos are not hidden from other units: {error}", file=sys.stderr)
        return False
    return True


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
