"""``immich-usb-backup check-config``: every mistake at once, and whether what it names is there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from immich_usb_backup import config as configuration
from immich_usb_backup.config import Config
from immich_usb_backup.errors import ConfigError
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import LIBRARY_STAGES
from immich_usb_backup.policy.dumps import newest_first
from immich_usb_backup.policy.text import moment


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
    for good, line in _look(config):
        print(f"{'ok ' if good else '!! '} {line}")
        problems += not good
    return ExitCode.PROBLEM if problems else ExitCode.OK


def _look(config: Config) -> Iterator[tuple[bool, str]]:
    if not os.access(config.media_location, os.R_OK | os.X_OK):
        reason = "may not be read by you: run this as root" if config.media_location.exists() else "does not exist"
        yield False, f"media_location {config.media_location} {reason}"
        return
    for stage in LIBRARY_STAGES:
        yield _folder(config.media_location / stage.value)
    yield _dumps(config.dumps)
    for path in config.config_files:
        yield os.access(path, os.R_OK), f"config_files: {path} {_readable(path)}"
    if config.mail and config.mail.password_file:
        path = config.mail.password_file
        yield os.access(path, os.R_OK), f"mail.password_file: {path} {_readable(path)}"


def _readable(path: Path) -> str:
    if not path.exists():
        return "does not exist"
    return "is there" if os.access(path, os.R_OK) else "may not be read by you"


def _folder(folder: Path) -> tuple[bool, str]:
    if not folder.is_dir():
        return False, f"{folder} is missing: Immich makes it at its first start"
    if not (folder / ".immich").exists():
        return False, f"{folder} has no .immich: is the storage mounted? Nothing would be removed from the disk"
    return True, f"{folder} is there"


def _dumps(folder: Path) -> tuple[bool, str]:
    try:
        found = newest_first(os.listdir(folder))
    except OSError as error:
        return False, f"database dumps: {folder}: {error.strerror}"
    if not found:
        return False, f"database dumps: none in {folder}; switch them on in Immich (Administration, Settings, Backup)"
    return True, f"database dumps: the newest of {len(found)} is of {moment(found[0].time)}"
