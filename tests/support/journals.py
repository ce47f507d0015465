"""A real journal file, with lines as the service writes them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from immich_usb_backup.adapters.journal import encode_entry, journal_fields
from immich_usb_backup.events import Event
from immich_usb_backup.policy.text import fill
from tests.support.needs import cannot_run

WRITER = Path("/lib/systemd/systemd-journal-remote")
Line = tuple[Event, str, Mapping[str, Any]]
"""What is said, the unit that says it (a user's unit where it begins with `user:`), and the fields."""


def _entry(number: int, line: Line) -> bytes:
    event, unit, fields = line
    kind = event.kind
    said = {"event": fill(kind.template, fields), "level_number": kind.level, "code": event.code}
    entry = journal_fields({**said, "message_id": kind.message_id, **fields})
    in_session = unit.startswith("user:")
    trusted = {
        "__REALTIME_TIMESTAMP": str(int(time.time() * 1_000_000) - 1_000_000 + number),
        "__MONOTONIC_TIMESTAMP": str(1000 + number),
        "_BOOT_ID": "a" * 32,
        "_MACHINE_ID": "b" * 32,
        "_UID": str(os.getuid()),
        "_SYSTEMD_USER_UNIT" if in_session else "_SYSTEMD_UNIT": f"{unit.removeprefix('user:')}.service",
    }
    return encode_entry({**trusted, **entry}) + b"\n"


def write(path: Path, lines: Iterable[Line]) -> Path:
    """Make the file, by way of the program that journals are sent to."""
    if not WRITER.exists():
        cannot_run("systemd-journal-remote is not installed")
    content = b"".join(_entry(number, line) for number, line in enumerate(lines))
    command = [str(WRITER), "--split-mode=none", "--compress=no", "-o", str(path), "-"]
    subprocess.run(command, input=content, check=True, capture_output=True, timeout=60)
    return path
