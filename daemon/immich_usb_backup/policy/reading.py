"""What it means that a file reads back from the disk as it does."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

Found = bytes | str | None
"""What reading a file gave: its SHA-1 (20 bytes), None where it is not there, or why it cannot be read."""


class Reading(Enum):
    """``PROVEN``: as it must be. ``WRONG``: not so. ``GONE``: not so, and the server has it no longer. ``OPEN``: nothing tells,
    as the server's cannot be read."""

    PROVEN = "proven"
    WRONG = "wrong"
    GONE = "gone"
    OPEN = "open"


def judge_copy(disk: Found, *, server: Found, immich: bytes) -> Reading:
    """A file that was just copied. ``immich`` is the SHA-1 of its upload, empty where there is none. ``server`` is only
    looked at where ``immich`` does not settle it."""
    if isinstance(disk, bytes) and disk == immich:
        return Reading.PROVEN
    if server is None:
        return Reading.GONE
    if isinstance(server, str):
        return Reading.OPEN
    if disk != server:
        return Reading.WRONG
    return Reading.PROVEN  # as it is on the server, be it what was uploaded or not: the verdict tells


class Old(NamedTuple):
    """What is known of a file that was copied by an earlier run: the SHA-1 that was noted, and that of its upload; empty
    where unknown."""

    digest: bytes
    immich: bytes

    @property
    def is_known(self) -> bool:
        """Whether the disk alone tells."""
        return bool(self.digest or self.immich)


def judge_old(disk: Found, *, server: Found, old: Old) -> Reading:
    """A file that was copied by an earlier run. ``server`` is only looked at where nothing else is known of it."""
    if not (isinstance(disk, bytes) and disk):
        return Reading.WRONG
    if old.is_known:
        return Reading.PROVEN if disk in {old.digest, old.immich} else Reading.WRONG
    if not isinstance(server, bytes):
        return Reading.OPEN
    return Reading.PROVEN if disk == server else Reading.WRONG
