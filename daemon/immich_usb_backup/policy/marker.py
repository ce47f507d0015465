"""The opt-in marker: a folder ``immich-server-backups`` in the root of the disk, or a file of that name."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field

from immich_usb_backup.model import BACKUP_FOLDER, Marker
from immich_usb_backup.policy.text import printable

MARKER_ENDINGS = (".txt", ".toml")
"""What "new file" on Windows and macOS adds; Windows hides it by default."""

ENROLLED_MARKER = BACKUP_FOLDER + ".toml"
"""Name of the marker file that ``enroll`` makes, in the root of the disk."""

INNER_MARKER = "marker.toml"
"""Name of a marker file after it has moved into the folder."""

MARKER_BYTES = 64 * 1024
"""No more than this is read of a marker file."""

NAME_LENGTH = 60
_SECRET = re.compile(r"[0-9a-f]{64}")  # 32 bytes
_HEAD = (
    "# Made by: immich-usb-backup enroll. The server knows this disk by the secret: whoever can read it can make\n"
    "# another disk pass for this one. Do not copy this file.\n"
)


def find_marker(entries: Iterable[tuple[str, bool]]) -> Marker | None:
    """The marker among the root's ``(name, is a folder)`` pairs, a folder before a file.

    exFAT does not tell upper from lower case, so neither do we. Anything that is neither a plain file nor a
    folder must not be passed in.
    """
    found = [Marker(entry=name, is_folder=folder) for name, folder in entries if _is_marker(name, folder)]
    found.sort(key=lambda marker: (not marker.is_folder, marker.entry))
    return found[0] if found else None


def marker_files(entries: Iterable[tuple[str, bool]]) -> tuple[str, ...]:
    """The marker files beside a marker folder, sorted: one of them may name the disk."""
    return tuple(sorted(name for name, folder in entries if not folder and _is_marker(name, folder)))


def _is_marker(name: str, folder: bool) -> bool:  # noqa: FBT001
    lower = name.lower()
    if lower == BACKUP_FOLDER:
        return True
    return not folder and lower in {BACKUP_FOLDER + ending for ending in MARKER_ENDINGS}


def has_folder_name(marker: Marker) -> bool:
    """Whether the marker stands where the folder must be made."""
    return not marker.is_folder and marker.entry.lower() == BACKUP_FOLDER


@dataclass(frozen=True, slots=True)
class MarkerText:
    """What a marker file says: the disk's name, or None, and the secret (hex), or nothing."""

    name: str | None = None
    secret: str = field(default="", repr=False)


def decode(content: bytes) -> MarkerText:
    """Read a marker file. Half-written and foreign contents are no error: they say nothing."""
    try:
        text = content[:MARKER_BYTES].decode("utf-8-sig")
        fields = tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError):  # ValueError: not UTF-8, not TOML, or a number of thousands of digits
        return MarkerText()
    secret = fields.get("secret")
    secret = secret if isinstance(secret, str) and _SECRET.fullmatch(secret) else ""
    return MarkerText(_clean_name(fields.get("name")), secret)


def disk_name(content: bytes) -> str | None:
    """The ``name`` that a marker file gives the disk, or None."""
    return decode(content).name


def _clean_name(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return printable(value.strip())[:NAME_LENGTH] or None


def is_enrolled_marker(entry: str) -> bool:
    """Whether this is the name of the file that ``enroll`` makes, as exFAT tells names apart."""
    return entry.lower() == ENROLLED_MARKER


def encode(text: MarkerText) -> bytes:
    """The marker file that ``enroll`` makes. The name must be one that ``policy.enrolment`` lets through: for such text a
    JSON string is a TOML string."""
    name = json.dumps(text.name, ensure_ascii=False)
    return f'{_HEAD}name = {name}\nsecret = "{text.secret}"\n'.encode()
