"""The machine as the checks see it: files below a root, programs, and one bus. Tests put their own in its place."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.power import MachinePower

_SECONDS = 10.0
_PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
"""Also what an ordinary user does not have in the PATH."""
_STORE = "/nix/store/"


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str = ""


def _find(program: str) -> str | None:
    return shutil.which(program, path=":".join([_PROGRAM_PATH, *_brought_along()]))


def _brought_along() -> Iterator[str]:
    """What NixOS's package puts before the PATH: rsync and so on, for the service as for this command."""
    yield from (folder for folder in os.environ.get("PATH", "").split(":") if folder.startswith(_STORE))


def _run(command: Sequence[str]) -> Ran | None:
    program = _find(command[0])
    if program is None:
        return None
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, timeout=_SECONDS, check=False, env=environment
        )
    except (subprocess.TimeoutExpired, OSError):
        return Ran(124, "", "it did not end")
    return Ran(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def _call(*place: str, signature: str = "", body: Sequence[Any] = ()) -> tuple[Any, ...]:
    return asyncio.run(_call_once(place, signature, body))


async def _call_once(place: Sequence[str], signature: str, body: Sequence[Any]) -> tuple[Any, ...]:
    destination, path, interface, member = place
    bus = await Bus.system(timeout=_SECONDS)
    try:
        return await bus.call(destination, path, interface, member, signature, body, timeout=_SECONDS)
    finally:
        await bus.close()


def _version() -> str:
    """Of what is installed; empty in a checkout, as the service has it."""
    try:
        return version("immich-usb-backup")
    except PackageNotFoundError:
        return ""


def _on_battery() -> bool:
    return asyncio.run(_asked_power())


async def _asked_power() -> bool:
    bus = await Bus.system(timeout=_SECONDS)
    try:
        return await MachinePower(bus).on_battery()
    finally:
        await bus.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """``find`` gives a program's path; ``run`` its result. Both give None for one that is not there. ``call`` (destination, path, interface, member) raises
    ``BusCallFailed``, ``BusLost`` and ``DeadlineMissed``; ``on_battery`` ``BusLost``."""

    root: Path = Path("/")
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    find: Callable[[str], str | None] = _find
    run: Callable[[Sequence[str]], Ran | None] = _run
    call: Callable[..., tuple[Any, ...]] = _call
    on_battery: Callable[[], bool] = _on_battery
    version: str = field(default_factory=_version)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def path(self, name: str | Path) -> Path:
        """An absolute path, below the root."""
        return self.root / str(name).lstrip("/")


def property_of(machine: Machine, destination: str, path: str, interface: str, name: str) -> Any:
    """One D-Bus property. Raises like ``Machine.call``."""
    place = (destination, path, "org.freedesktop.DBus.Properties", "Get")
    (value,) = machine.call(*place, signature="ss", body=[interface, name])
    return value
