"""Whether a disk can hold what it is to hold."""

from __future__ import annotations

from dataclasses import dataclass

from immich_usb_backup.policy.text import size

ROOM_FOR_METADATA = 16 * 1024 * 1024
"""For folders, the allocation table and the manifest, beside the files' own clusters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """All in bytes. ``needed``: what the copying takes at its worst moment, in whole clusters. ``library``: what all files
    of the server's take. ``reserve``: what must be left beside them. ``purgeable``: what ``deleted/`` could give back."""

    needed: int
    free: int
    library: int
    partition: int
    reserve: int
    purgeable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomVerdict:
    """``missing`` bytes, 0 where it fits; ``purge`` bytes are to be given back by ``deleted/`` first; ``reason`` and
    ``hint`` for people."""

    missing: int = 0
    purge: int = 0
    reason: str = ""
    hint: str = ""


def judge_room(room: Room) -> RoomVerdict:
    """Both checks: can the partition hold the library at all, and is there room for what is new now?"""
    if not room.needed:
        return RoomVerdict()
    if (missing := room.library + room.reserve - room.partition) > 0:
        return RoomVerdict(
            missing=missing,
            reason=f"The disk is too small: the library takes {size(room.library)} on it, and {size(room.reserve)} must be "
            f"left; it has {size(room.partition)}, {size(missing)} are missing",
            hint="Use a larger disk, or leave folders out by [exclude] in the configuration.",
        )
    needed = room.needed + ROOM_FOR_METADATA
    if (short := needed - room.free) <= 0:
        return RoomVerdict()
    if (missing := short - room.purgeable) > 0:
        return RoomVerdict(
            missing=missing,
            reason=f"The new photos need {size(needed)}, but {size(room.free)} are free"
            + (f" and {size(room.purgeable)} in deleted/ could go" if room.purgeable else "")
            + f": {size(missing)} are missing",
            hint="Make room on the disk outside its backup folder, or use a larger disk.",
        )
    return RoomVerdict(purge=short)
