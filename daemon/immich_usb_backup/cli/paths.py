"""Where things are, unless the command line says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

STATE = Path("/var/lib/immich-usb-backup")


def state_folder(given: Path | None) -> Path:
    """The daemon's state: the option, else what systemd made (StateDirectory=), else the usual place."""
    if given is not None:
        return given
    made = os.environ.get("STATE_DIRECTORY", "")
    return Path(made.split(":")[0]) if made else STATE
