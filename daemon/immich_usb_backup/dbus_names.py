"""How the daemon is called on the system bus: shared by the daemon, which speaks, and the agents, which listen."""

from __future__ import annotations

BUS_NAME = "io.github.immich_usb_backup1"
OBJECT_PATH = "/io/github/immich_usb_backup1"
MANAGER = "io.github.immich_usb_backup1.Manager"
"""The interface with the signals below, each with one ``a{sv}``, and the methods."""

RUN_STARTED = "RunStarted"
"""``run``, ``disk``, ``headline``; optional ``uuid`` and ``shown``."""
RUN_PROGRESS = "RunProgress"
"""``run``, ``disk``, ``stage``, ``percent`` (-1: unknown), ``done`` and ``total`` (bytes), ``rate`` (bytes in a second) and
``seconds_left`` (both -1: unknown), ``line``."""
RUN_FINISHED = "RunFinished"
"""``run``, ``disk``, ``uuid``, ``outcome``, ``safe_to_unplug``, ``headline``, ``body``, ``todo``, ``shown``."""
DISK_REMOVED = "DiskRemoved"
"""``uuid``, ``disk``."""
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
ERROR = "io.github.immich_usb_backup1.Error"
"""What the names of our errors begin with; ``requests.Refusal`` has how they end."""
