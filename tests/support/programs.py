"""Programs that stand in for others in a folder that comes first in the PATH."""

from __future__ import annotations

import os
from pathlib import Path


def put_program(folder: Path, name: str, body: str) -> str:
    """A shell program of that name in ``folder``, which is made where it is missing. Returns the PATH that begins with it."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
