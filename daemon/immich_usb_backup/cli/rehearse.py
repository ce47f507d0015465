"""``immich-usb-backup rehearse``: prove that a disk's dump can be restored, and that the files which it names are there."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from immich_usb_backup.adapters.mounts import mount_points
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.database_restore_rehearsal import Rehearsal, not_established, told
from immich_usb_backup.policy.text import harmless, printable
from immich_usb_backup.restore.rehearsal import rehearse

_LINKS = ("/dev/disk/by-label", "/dev/disk/by-uuid")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument(
        "place",
        metavar="FOLDER_OR_DISK",
        help="where it is mounted, a copy of the backup, or its label, UUID or device",
    )
    parser.add_argument(
        "--dump", default="", metavar="NAME", help="a dump in database/; default: the newest one that is whole"
    )
    parser.add_argument(
        "--docker", default="", metavar="IMAGE", help="in a container of this image, not with this machine's PostgreSQL"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """0: it went well; 1: a problem was found; 69: it could not be done; 75: the disk is not mounted here."""
    place = _place(arguments.place)
    if place is None:
        print(
            f"immich-usb-backup: '{printable(arguments.place)}' is neither a folder nor a disk that is mounted here",
            file=sys.stderr,
        )
        print("immich-usb-backup: Mount the disk first, for reading: sudo mount -o ro DEVICE /mnt", file=sys.stderr)
        return ExitCode.NOT_HERE
    for number in _SIGNALS:
        signal.signal(number, _stop)
    found = rehearse(place, dump=arguments.dump, image=arguments.docker, say=_say)
    print(json.dumps(_document(found), indent=2) if arguments.json else "\n".join(told(found)))
    return ExitCode.OK if found.good else ExitCode.PROBLEM


def _stop(*_: object) -> NoReturn:
    """Everything is taken down, and no second signal disturbs that."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(harmless(line), file=sys.stderr, flush=True)


def _document(found: Rehearsal) -> dict[str, object]:
    return {**asdict(found), "good": found.good, "not_established": list(not_established(found))}


def _place(text: str) -> Path | None:
    """A folder, or where a disk is mounted that has this label, UUID or device node."""
    path = Path(text)
    if path.is_dir():
        return path
    names = [text] if text.startswith("/") else [f"{folder}/{text}" for folder in _LINKS]
    for name in names:
        try:
            points = mount_points(os.stat(name).st_rdev)
        except OSError:
            continue
        if points:
            return Path(points[-1].path)
    return None
