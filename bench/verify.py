"""How fast files are read back from a disk: the run's own stage beside ``sha1sum`` on the same files, the cache cold for both.

    sudo .venv/bin/python -m bench.verify [--files N] [--kilobytes N] [--rounds N] [--folder DIRECTORY] [--json]

``--folder`` is a folder on the disk to be measured (default: the temporary folder). The stage reads files of which it knows
the SHA-1, as it does in a run, and notes in a manifest what is proven. Who goes first changes with each round.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

from tests.support.fakes import Stick, partition_of, seen_stick

from immich_usb_backup.adapters.clock import SystemClock
from immich_usb_backup.adapters.manifest import SqliteManifests
from immich_usb_backup.adapters.target import DiskTarget
from immich_usb_backup.adapters.tree import Descriptor
from immich_usb_backup.config import Config
from immich_usb_backup.model import Disk, Mount, Rereading
from immich_usb_backup.policy.manifest import Change, DiskRecord, Known
from immich_usb_backup.policy.rereading import Turn
from immich_usb_backup.ports import Manifest, Ports
from immich_usb_backup.stages.context import RunContext, Work
from immich_usb_backup.stages.prove import prove

USER = "upload/5f0c1d7e-8a3b-4c55-9e0f-2b7a6d1c9e44"
_IN_A_FOLDER = 4
_SHA1SUM = "find upload -type f -print0 | sort -z | xargs -0 sha1sum > /dev/null"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="reading back, beside sha1sum")
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--kilobytes", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured (default: the temporary folder)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-") as folder:
        figures = measure(Path(folder), arguments.files, arguments.kilobytes, arguments.rounds)
    if arguments.json:
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            print(f"{name}: {value:,.2f}")


def measure(folder: Path, files: int, kilobytes: int, rounds: int) -> dict[str, float]:
    """MB/s of both, medians of the rounds, and their ratio."""
    disk = folder / "disk"
    lines = make_files(disk, files, kilobytes * 1000)
    size = sum(known.size for _, known in lines)
    tools: dict[str, Callable[[], object]] = {
        "ours": lambda: asyncio.run(_read(folder, disk, lines)),
        "sha1sum": lambda: subprocess.run(_SHA1SUM, shell=True, cwd=disk, check=True),  # our own words
    }
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    for number in range(rounds):
        for name in sorted(tools, reverse=bool(number % 2)):
            seconds[name].append(_timed(disk, tools[name]))
    rates = {f"{name}, MB/s": size / 1e6 / statistics.median(times) for name, times in seconds.items()}
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["sha1sum"], strict=True)]
    return {**rates, "ratio": statistics.median(ratios), "files": files, "MB": size / 1e6}


def make_files(disk: Path, files: int, size: int) -> list[tuple[str, Known]]:
    """Files of Immich's shape, and their lines in the manifest."""
    random, lines = Random(3), []
    for number in range(files):
        place = number // _IN_A_FOLDER
        folder = f"{USER}/{place >> 8:02x}/{place & 255:02x}"
        (disk / folder).mkdir(parents=True, exist_ok=True)
        name, content = f"{random.getrandbits(128):032x}.jpg", random.randbytes(size)
        (disk / folder / name).write_bytes(content)
        digest = hashlib.sha1(content, usedforsecurity=False).digest()
        lines.append((f"{folder}/{name}", Known(name.encode(), name.encode(), size, 0, 1, digest)))
    os.sync()
    return lines


def _timed(disk: Path, tool: Callable[[], object]) -> float:
    _cool(disk)
    began = time.perf_counter()
    tool()
    return time.perf_counter() - began


def _cool(disk: Path) -> None:
    """Neither the files nor, for root, their folders are in memory."""
    for path in disk.rglob("*.jpg"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


async def _read(folder: Path, disk: Path, lines: list[tuple[str, Known]]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as state:
        manifest = await SqliteManifests(Path(state)).open("BENCH")
        await manifest.apply(Change(path.encode(), known) for path, known in lines)
        await manifest.commit()
        work = _work(disk, manifest)
        await prove(work, Turn(before=datetime.now(UTC), seconds=None), _ignore, wish=asyncio.Event())
        files, _ = await manifest.proofs()
        await manifest.close()
        await work.target.close()
        if files != len(lines):
            sys.exit(f"{len(lines) - files} files did not read back as they were written")


def _ignore(_: object) -> None:
    pass


def _work(disk: Path, manifest: Manifest) -> Work:
    stick = Stick(seen=seen_stick(), root=disk)
    mount = Mount(partition=partition_of(stick), path=str(disk), read_only=False, ours=True)
    ports = SimpleNamespace(clock=SystemClock(), watchers=SimpleNamespace(progress=_ignore))  # all that the stage asks
    run = RunContext(
        run_id="bench",
        disk=Disk(name="Bench", label="BENCH", uuid="BENCH", serial="1", model="Bench", size=10**13, device_node=""),
        started=datetime.now(UTC),
        config=Config(),
        ports=cast(Ports, ports),
        rereading=Rereading.ALL,
    )
    return Work(
        run=run,
        target=DiskTarget(Descriptor.open(disk), mount, lambda: True),
        manifest=manifest,
        server_id="bench",
        state=None,
        generation="",
        record=DiskRecord(),
        walk_because=(),
    )


if __name__ == "__main__":
    main()
