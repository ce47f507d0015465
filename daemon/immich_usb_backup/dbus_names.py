"""How the daemon is called on the system bus: shared by the daemon, which speaks, and the agents, which listen."""

from __future__ import annotations

BUS_NAME = "io.github.immich_usb_backup1"
OBJECT_PATH = "/io/github/immich_usb_backup1"
MANAGER = "io.github.immich_usb_backup1.Manager"
"""The interface with the signals below, each with one ``a{sv}``, and ``GetState() -> a{sv}``."""

RUN_STARTED = "RunStarted"
"""``run``, ``disk``, ``headline``; optional ``uuid`` and ``shown``."""
RUN_PROGRESS = "RunProgress"
"""``run``, ``disk``, ``stage``, ``percent`` (-1: unknown), ``done`` and ``total`` (bytes), ``line``."""
RUN_FINISHED = "RunFinished"
"""``run``, ``disk``, ``uuid``, ``outcome``, ``safe_to_unplug``, ``headline``, ``body``, ``todo``, ``shown``."""
DISK_REMOVED = "DiskRemoved"
"""``uuid``, ``disk``."""
GET_STATE = "GetState"
"""Answers ``running``, and while it is true the keys of the last ``RunStarted`` and ``RunProgress``."""
