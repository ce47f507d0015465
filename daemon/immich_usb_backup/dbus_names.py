"""How the daemon is called on the system bus: shared by the daemon, which speaks, and the agents, which listen."""

from __future__ import annotations

import re

BUS_NAME = "io.github.immich_usb_backup1"
OBJECT_PATH = "/io/github/immich_usb_backup1"
MANAGER = "io.github.immich_usb_backup1.Manager"
"""The interface with the signals below, each with one ``a{sv}``, and the methods."""

DISK = "io.github.immich_usb_backup1.Disk"
"""The interface of the objects below ``disks/``."""
RUN = "io.github.immich_usb_backup1.Run"
"""The interface of the objects below ``runs/``."""
DISKS, RUNS = "disks", "runs"

RUN_STARTED = "RunStarted"
"""``run``, ``disk``, ``headline``; optional ``uuid`` and ``shown``."""
RUN_PROGRESS = "RunProgress"
"""``run``, ``disk``, ``stage``, ``percent`` (-1: unknown), ``done`` and ``total`` (bytes), ``rate`` (bytes in a second) and
``seconds_left`` (both -1: unknown), ``line``."""
RUN_FINISHED = "RunFinished"
"""``run``, ``disk``, ``uuid``, ``outcome``, ``safe_to_unplug``, ``headline``, ``body``, ``todo``, ``findings`` (codes),
``shown``."""
DISK_REMOVED = "DiskRemoved"
"""``uuid``, ``disk``."""
NOTICE = "Notice"
"""``notice`` (its id), ``kind``, ``headline``, ``body``, ``todo``, ``uuid``, ``disk``: something to know outside of a run."""
GET_STATE = "GetState"
"""Answers ``running``, and while it is true the keys of the last ``RunStarted`` and ``RunProgress``."""

PLAN = "Plan"
"""``(s disk, s mode) -> s``: what a run would do, as JSON. Waits for its turn, and for the disk to be looked at."""
BACKUP = "Backup"
"""``(s disk, s mode) -> s``: have a run begin or wait for its turn; answers the disk's name at once."""
VERIFY = "Verify"
"""``(s disk, s what) -> ss``: have a run begin that reads back what is ``due`` or ``all``; answers the disk's name and UUID
at once."""
EJECT = "Eject"
"""``(s disk) -> s``: have a disk unmounted, ending a run that only reads it back; answers its name when it may be unplugged."""
APPROVE = "Approve"
"""``(s disk) -> u``: approve held deletions; answers how many."""
ADOPT = "Adopt"
"""``(s disk) -> s``: let the next run take a disk over from another server; answers the disk's name."""
CANCEL = "Cancel"
"""``(s disk) -> s``: end the run that goes on (``""``: whatever goes on), or take it from those that wait; answers the disk's
name at once."""
FORGET = "Forget"
"""``(s disk) -> s``: remove what is remembered of a disk; answers its name."""
RETRY = "Retry"
"""``(s run) -> s``: have a run begin that copies what that one did not; answers the disk's name at once."""
GET_DISKS = "GetDisks"
"""``() -> aa{sv}``: every disk that is known or plugged in, with the properties of ``Disk``."""
GET_HISTORY = "GetHistory"
"""``(s disk, u number, b failed) -> aa{sv}``: the newest runs, of one disk only where it is named."""
GET_REPORT = "GetReport"
"""``(s run) -> s``: everything about one run, as JSON."""
GET_CURRENT_FILE = "GetCurrentFile"
"""``() -> s``: the file that is being copied, about; empty where that is not known."""
ENROLL = "Enroll"
"""``(s device, s name) -> s``: make a disk one of ours; answers its name."""
REMIND = "Remind"
"""``() -> u``: remind of the disks that are due; answers of how many."""
ERROR = "io.github.immich_usb_backup1.Error"
"""What the names of our errors begin with; ``requests.Refusal`` has how they end."""


def path_of(kind: str, name: str) -> str:
    """The path of a disk (``DISKS``, its UUID) or of a run (``RUNS``, its id). Letters and digits stay as they are, every
    other byte is ``_`` and two hex digits."""
    escaped = re.sub(rb"[^A-Za-z0-9]", lambda found: b"_%02x" % found[0][0], name.encode("utf-8", "surrogateescape"))
    return f"{OBJECT_PATH}/{kind}/{escaped.decode()}"


def name_of(kind: str, path: str) -> str | None:
    """The name in such a path; None for any other path."""
    prefix = f"{OBJECT_PATH}/{kind}/"
    escaped = path.removeprefix(prefix)
    if escaped == path or not re.fullmatch(r"(?:[A-Za-z0-9]|_[0-9a-f]{2})+", escaped):
        return None
    name = re.sub(rb"_(..)", lambda found: bytes.fromhex(found[1].decode()), escaped.encode())
    text = name.decode("utf-8", "surrogateescape")
    return text if path_of(kind, text) == path else None
