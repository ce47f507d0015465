"""``immich-usb-backup make-dump``: run by a unit of its own, which has what making a dump needs and nothing else.

The daemon learns from the exit code whether there is a dump, and why not from the unit's status line.
"""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from datetime import datetime
from pathlib import Path

from immich_usb_backup import config as configuration
from immich_usb_backup.adapters.fresh_dumps import FAILED
from immich_usb_backup.adapters.service import Service
from immich_usb_backup.cli.paths import dump_folder
from immich_usb_backup.dump_making.making import make
from immich_usb_backup.errors import BackupError
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import harmless


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="where the dump goes; default: what systemd gives")


def run(arguments: argparse.Namespace) -> int:
    """Print what was made. 0: there is a fresh dump; 1: there is none."""
    try:
        database = configuration.load(arguments.config).database
        made = make(database, dump_folder(arguments.folder), now=datetime.now().astimezone(), environment=os.environ)
    except BackupError as error:
        _tell(f"{FAILED}{error.message}")
        return ExitCode.PROBLEM
    _tell(f"made {made}")
    return ExitCode.OK


def _tell(text: str) -> None:
    line = harmless(text)
    print(line)
    if "NOTIFY_SOCKET" in os.environ:
        with closing(Service()) as service:
            service.status(line)
