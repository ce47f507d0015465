"""Which programs use a mount point, as far as this process may see: an unprivileged one sees its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def holders(mount_path: str) -> tuple[str, ...]:
    """``name (pid)`` of each process with a file or its working folder below ``mount_path``; bounded, sorted."""
    found = {f"{_name(process)} ({process.name})" for process in _processes() if _uses(process, mount_path)}
    return tuple(sorted(found))[:10]


def _processes() -> Iterator[Path]:
    return (entry for entry in _PROC.iterdir() if entry.name.isdigit())


def _name(process: Path) -> str:
    try:
        return process.joinpath("comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "?"


def _uses(process: Path, mount_path: str) -> bool:
    return any(target == mount_path or target.startswith(mount_path + "/") for target in _targets(process))


def _targets(process: Path) -> Iterator[str]:
    try:
        descriptors = [*process.joinpath("fd").iterdir()]
    except OSError:
        descriptors = []
    for link in (process / "cwd", process / "root", *descriptors):
        try:
            yield os.readlink(link)
        except OSError:
            continue  # gone meanwhile, or not ours to see
