"""``immich-usb-backup check-config``: every mistake at once, and whether what it names is there."""

from __future__ import annotations

import argparse
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from immich_usb_backup import config as configuration
from immich_usb_backup.config import Config, Database, Mail
from immich_usb_backup.doctor import walls
from immich_usb_backup.doctor.checked import Result
from immich_usb_backup.doctor.machine import Machine
from immich_usb_backup.errors import ConfigError
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import LIBRARY_STAGES
from immich_usb_backup.policy.dumps import newest_first
from immich_usb_backup.policy.schedule import normalised
from immich_usb_backup.policy.text import moment, printable

_CALENDAR_SECONDS = 10.0

CREDENTIAL = Path("/etc/immich-usb-backup/smtp-password")
"""Where the notifier's unit takes its credential from."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("file", type=Path, nargs="?", default=configuration.DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument("--syntax-only", action="store_true", help="do not look whether the folders are there")


def run(arguments: argparse.Namespace) -> int:
    """0: fine; 78: mistakes in the file; 1: the file is right, but something that it names is not there."""
    try:
        config = configuration.load(arguments.file)
    except ConfigError as error:
        for problem in error.problems:
            print(problem)
        return ExitCode.CONFIG
    print(f"{arguments.file}: no mistakes")
    if arguments.syntax_only:
        return ExitCode.OK
    problems = 0
    for good, line in (*_look(config), *_walls(arguments.file, config)):
        print(f"{'ok ' if good else '!! '} {line}")
        problems += not good
    return ExitCode.PROBLEM if problems else ExitCode.OK


def _look(config: Config) -> Iterator[tuple[bool, str]]:
    yield from (_folder(config.media_location / stage.value) for stage in LIBRARY_STAGES)
    yield from (_readable(path, f"extra.{name}") for name, path in config.extra.items())
    yield _dumps(config.dumps)
    yield from _fresh(config.database)
    yield from (_readable(path, "config_files") for path in config.config_files)
    if config.mail:
        yield from _password(config.mail)
    yield from (_schedule(name, disk.schedule) for name, disk in config.disk.items() if disk.schedule.strip())


def _walls(file: Path, config: Config) -> Iterator[tuple[bool, str]]:
    """Of the configuration that is in use: what the service's walls still hide."""
    if file != configuration.DEFAULT_PATH:
        return
    for one in walls.look(Machine(), config):
        if one.result is not Result.OK:
            yield one.result is Result.UNSEEN, f"{one.about}: {one.text}. {one.todo}".rstrip(". ")


def _state(path: Path) -> str:
    """``there``, or what keeps it from being read."""
    try:
        path.stat()
    except OSError as error:
        return "may not be looked at by you: run this with sudo" if error.errno == errno.EACCES else "does not exist"
    return "there" if os.access(path, os.R_OK) else "may not be read by you: run this with sudo"


def _readable(path: Path, option: str) -> tuple[bool, str]:
    state = _state(path)
    return state == "there", f"{option}: {path} {'is there' if state == 'there' else state}"


def _folder(folder: Path) -> tuple[bool, str]:
    if (state := _state(folder)) != "there":
        return False, f"media_location: {folder} {state}"
    if (state := _state(folder / ".immich")) != "there":
        return False, f"media_location: {folder / '.immich'} {state}. Is the storage mounted, has Immich been started?"
    return True, f"media_location: {folder} is there"


def _password(mail: Mail) -> Iterator[tuple[bool, str]]:
    if mail.password_file:
        yield _readable(mail.password_file, "mail.password_file")
    elif mail.username:
        yield _readable(CREDENTIAL, "mail: the password file")


def _schedule(name: str, schedule: str) -> tuple[bool, str]:
    """What only systemd can tell: whether it understands a time, and when that comes next."""
    about = f"disk.{printable(name)}.schedule: {schedule}"
    program = shutil.which("systemd-analyze")
    if program is None:
        return True, f"{about}: not checked, as systemd-analyze is not installed"
    command = [program, "calendar", "--", normalised(schedule)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_CALENDAR_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return True, f"{about}: not checked: {error}"
    if done.returncode:
        return False, f"{about}: systemd does not understand it. See: man systemd.time"
    following = re.search(r"(?m)^ *Next elapse: (.+)$", done.stdout)
    return True, f"{about}: next {following[1]}" if following else f"{about}: never comes again"


def _fresh(database: Database) -> Iterator[tuple[bool, str]]:
    """What is needed for fresh dumps, as far as it can be seen from here: the unit that makes them has a user of its own."""
    if database.mode == "immich-api" and database.api_key_file:
        yield _readable(database.api_key_file, "database.api_key_file")
    if database.mode in {"pg_dump", "command"}:
        if database.password_file:
            yield _readable(database.password_file, "database.password_file")
        program = database.command[0] if database.mode == "command" else "pg_dump"
        there = shutil.which(program) is not None
        yield there, f"database.mode: the program {program} {'is there' if there else 'is not installed'}"


def _dumps(folder: Path) -> tuple[bool, str]:
    try:
        found = newest_first(os.listdir(folder))
    except OSError as error:
        return False, f"database dumps: {folder}: {error.strerror}"
    if not found:
        return False, f"database dumps: none in {folder}; switch them on in Immich (Administration, Settings, Backup)"
    return True, f"database dumps: the newest of {len(found)} is of {moment(found[0].time)}"
