"""Where things are, unless the command line says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

STATE = Path("/var/lib/immich-usb-backup")


def dumps_beside(state: Path) -> Path:
    """The folder with the fresh dumps. It belongs to the unit that makes them, and so is not in the daemon's: systemd gives it
    to that unit's user through whatever link the folder's owner puts there."""
    return state.with_name(f"{state.name}-dumps")


def state_folder(given: Path | None) -> Path:
    """The daemon's state: the option, else what systemd made (StateDirectory=), else the usual place."""
    if given is not None:
        return given
    made = os.environ.get("STATE_DIRECTORY", "")
    return Path(made.split(":")[0]) if made else STATE


def dump_folder(given: Path | None) -> Path:
    """Fresh dumps: the option, else what systemd made for the unit that makes them, else the usual place."""
    made = os.environ.get("STATE_DIRECTORY", "")
    return given or (Path(made.split(":")[0]) if made else dumps_beside(STATE))
