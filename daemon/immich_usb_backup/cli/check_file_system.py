"""``immich-usb-backup check-file-system``: run by units of its own, which may open one device and nothing else.

The daemon learns the health from the exit code, and what was said from the unit's status line.
"""

from __future__ import annotations

import argparse
import os
from contextlib import closing

from immich_usb_backup.adapters.fsck import check
from immich_usb_backup.adapters.service import Service
from immich_usb_backup.policy.file_system import EXIT_CODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("device", help="such as /dev/sdb1, not mounted")
    parser.add_argument("--repair", action="store_true", help="mend what is damaged in the backup folder")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found. 0: clean, 10: not unmounted properly, but sound, 11: repaired, 12: damaged, 13: not checked."""
    health, said = check(arguments.device, repair=arguments.repair)
    line = f"{health.value}: {said}"
    print(line)
    if "NOTIFY_SOCKET" in os.environ:
        with closing(Service()) as service:
            service.status(line)
    return EXIT_CODES[health]
