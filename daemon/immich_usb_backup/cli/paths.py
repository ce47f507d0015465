"""Where things are, unless the command line says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

STATE = Path("/var/lib/immich-usb-backup")
DUMPS = "dumps"
"""The folder in it with the fresh dumps; it belongs to the unit that makes them."""


def state_folder(given: Path | None) -> Path:
    """The daemon's state: the option, else what systemd made (StateDirectory=), else the usual place."""
    if given is not None:
        return given
    made = os.environ.get("STATE_DIRECTORY", "")
    return Path(made.split(":")[0]) if made else STATE


def dump_folder(given: Path | None) -> Path:
    """Fresh dumps: the option, else what systemd made for the unit that makes them, else the usual place."""
    made = os.environ.get("STATE_DIRECTORY", "")
    return given or (Path(made.split(":")[0]) if made else STATE / DUMPS)
