"""Holding what lies on the disk against what was to be copied, whatever the copying program said of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from immich_usb_backup.policy.times import times_agree


class FileFact(NamedTuple):
    """Size in bytes and modification time in nanoseconds since 1970."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyCheck:
    """What a look at the disk says about the files that were to be copied.

    ``good`` arrived, ``size`` bytes in all. ``again`` are worth another try: path and reason. ``vanished`` are no longer
    on the server.
    """

    good: tuple[bytes, ...]
    size: int
    again: tuple[tuple[bytes, str], ...]
    vanished: tuple[bytes, ...]

    @property
    def files(self) -> int:
        """How many arrived."""
        return len(self.good)


def check_copy(
    planned: Mapping[bytes, FileFact], on_disk: Mapping[bytes, FileFact], source: Mapping[bytes, FileFact]
) -> CopyCheck:
    """Compare by the paths on the server: ``planned``, what is ``on_disk`` and in the ``source`` now."""
    good: list[bytes] = []
    again: list[tuple[bytes, str]] = []
    vanished: list[bytes] = []
    for path in planned:
        now, there = source.get(path), on_disk.get(path)
        if now is None:
            vanished.append(path)
        elif there is not None and there.size == now.size and times_agree(now.mtime_ns, there.mtime_ns):
            good.append(path)
        else:
            again.append((path, "it did not arrive on the disk" if now == planned[path] else "it changed meanwhile"))
    copied = sum(on_disk[path].size for path in good)
    return CopyCheck(good=tuple(good), size=copied, again=tuple(again), vanished=tuple(vanished))


def explain(failed: tuple[tuple[bytes, str], ...], complaints: tuple[str, ...]) -> tuple[tuple[bytes, str], ...]:
    """The failed files, with what the copying program said about each where it said something."""
    return tuple((path, _complaint(path, complaints) or reason) for path, reason in failed)


def _complaint(path: bytes, complaints: tuple[str, ...]) -> str:
    name = path.rpartition(b"/")[2].decode("utf-8", "surrogateescape")
    line = next((line for line in complaints if name in line), "")
    return line.rpartition(" failed: ")[2] if " failed: " in line else line
