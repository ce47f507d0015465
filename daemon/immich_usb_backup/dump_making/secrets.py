"""Passwords and keys: the first line of a file, or what systemd was given for this unit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from immich_usb_backup.adapters import atomic
from immich_usb_backup.errors import FreshDumpFailed

_LONGEST = 10_000


def first_line(path: Path | None, *, credential: str, environment: Mapping[str, str]) -> str:
    """The secret; empty where there is none. Raises ``FreshDumpFailed`` where the file that was named cannot be read."""
    if path is not None:
        return _read(path)
    folder = environment.get("CREDENTIALS_DIRECTORY", "")
    given = Path(folder) / credential
    return _read(given) if folder and os.path.lexists(given) else ""


def _read(path: Path) -> str:
    try:
        lines = atomic.read(path.resolve(), limit=_LONGEST).decode().splitlines()
    except OSError as error:
        raise FreshDumpFailed(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FreshDumpFailed(f"{path} is no text file with a secret in its first line") from error
    return lines[0].strip() if lines else ""
