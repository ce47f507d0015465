"""What an exFAT boot sector says of its file system, and what ``fsck.exfat`` (exfatprogs, measured with 1.2.0) says.

Its exit code alone does not tell: it ends with 0 and calls a file system clean in which it has named entries of unknown
types. So its lines are read too: each complaint begins with ``ERROR:`` and a path, or is none that we know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from immich_usb_backup.model import BACKUP_FOLDER
from immich_usb_backup.policy.text import counted, printable

SECTOR = 512
"""Bytes of the boot sector that matter, whatever the disk's sectors are."""

FLAGS_AT = 0x6A
"""Where the volume's flags are: two bytes, little-endian. The boot region's checksum leaves them out."""

DIRTY, MEDIA_FAILURE = 0x02, 0x04

NO_ERRORS, CORRECTED, ERRORS_LEFT = 0, 1, 4
"""Exit codes of fsck; all others mean that it could not do its work."""

_OURS = re.compile(rf"ERROR: /{re.escape(BACKUP_FOLDER)}[/:]", re.IGNORECASE)
_COMPLAINT = re.compile(r"ERROR: ")
_ORDINARY = re.compile(r"exfatprogs version|\S+: (clean|corrupted)\. directories \d|\S+: files corrupted \d|$")
_ANSWERED = re.compile(r"( at 0x[0-9a-f]+)?\. \w+ \(y/N\)\? [yn]$")


@dataclass(frozen=True, slots=True)
class BootSector:
    """``serial`` is what udev calls the file system's UUID; ``flags`` are the volume's."""

    serial: str
    flags: int

    @property
    def clean(self) -> bool:
        """Whether it was unmounted properly, and nobody has noted that the medium fails."""
        return not self.flags & (DIRTY | MEDIA_FAILURE)


def boot_sector(content: bytes) -> BootSector | None:
    """The boot sector, or None where this is no exFAT."""
    if len(content) < SECTOR or content[3:11] != b"EXFAT   " or content[510:512] != b"\x55\xaa":
        return None
    number = int.from_bytes(content[0x64:0x68], "little")
    flags = int.from_bytes(content[FLAGS_AT : FLAGS_AT + 2], "little")
    return BootSector(f"{number >> 16:04X}-{number & 0xFFFF:04X}", flags)


@dataclass(frozen=True, slots=True)
class Complaints:
    """What fsck complained about: how often, where, and the first as a printable line.

    ``elsewhere``: about something outside the backup folder, or in words that are not known.
    """

    number: int = 0
    elsewhere: bool = False
    first: str = ""

    def __add__(self, other: Complaints) -> Complaints:
        return Complaints(self.number + other.number, self.elsewhere or other.elsewhere, self.first or other.first)

    def __str__(self) -> str:
        return f"{counted(self.number, 'error')}, the first: {self.first}" if self.number else self.first


def read_lines(lines: Iterable[str]) -> Complaints:
    """The complaints in fsck's output. Works through any amount of it in little memory."""
    number, elsewhere, first = 0, False, ""
    for line in lines:
        text = line.rstrip("\n")
        if _ORDINARY.match(text):
            continue
        is_complaint = bool(_COMPLAINT.match(text))
        number += is_complaint
        elsewhere = elsewhere or not _OURS.match(text)
        first = first or printable(_ANSWERED.sub("", text).removeprefix("ERROR: "))
    return Complaints(number, elsewhere, first)


def is_sound(code: int, complaints: Complaints) -> bool:
    """Whether nothing is wrong."""
    return code == NO_ERRORS and not complaints.number


def may_repair(code: int, complaints: Complaints) -> bool:
    """Whether a repair would change nothing but the backup folder, as far as a look without changes can tell."""
    return code in {NO_ERRORS, ERRORS_LEFT} and not complaints.elsewhere
