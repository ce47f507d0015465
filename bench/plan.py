"""What the plan costs: the server's folders read, held against the manifest, and decided on. Nothing is copied.

    .venv/bin/python -m bench.plan [--files N] [--folder DIRECTORY] [--cpu N] [--profile] [--json]

Makes a library of ``--files`` photos of Immich's shape (``upload/<user>/aa/bb/<uuid>.jpg``; they have sizes and no content)
and a manifest that knows them. Each case then runs in a process of its own on one core: opening the manifest, and
``stages.planning.decide`` as a run does it.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TypeVar, cast

from tests.support.fakes import World

from immich_usb_backup.adapters.manifest import SqliteManifests
from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.adapters.threads import Threads
from immich_usb_backup.cli.daemon import COLLECT_AFTER
from immich_usb_backup.config import LIBRARY_FOLDERS, Config
from immich_usb_backup.model import Disk
from immich_usb_backup.policy.manifest import Change, DiskRecord, Known
from immich_usb_backup.ports import Manifest, Target
from immich_usb_backup.stages.context import RunContext, Work
from immich_usb_backup.stages.planning import Decision, decide

T = TypeVar("T")

USER = "5f0c1d7e-8a3b-4c55-9e0f-2b7a6d1c9e44"
CLUSTER = 131_072
UUID = "BENCH"
FULL, EMPTY = "known", "empty"
CASES = {"no change": FULL, "first copy": EMPTY, "1 % changed": FULL}
"""In this order: the last one changes the library. Beside each, which manifest it is held against."""

_DAY_NS = 86_400 * 10**9


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    if arguments.case is not None:
        print(json.dumps(measure(arguments.folder, arguments.case, cpu=arguments.cpu, profile=arguments.profile)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-") as folder:
        figures = dict(_all_cases(Path(folder), arguments))
    if arguments.json:
        print(json.dumps(figures, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="the plan alone")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the temporary folder)")
    parser.add_argument("--cpu", type=int, default=min(os.sched_getaffinity(0)), help="the core that is measured on")
    parser.add_argument("--profile", action="store_true", help="show where the time goes, which makes it longer")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    return parser.parse_args()


def _all_cases(folder: Path, arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    make_library(folder / "immich", arguments.files)
    asyncio.run(_remember(folder))
    for case in CASES:
        if case == "1 % changed":
            change(folder / "immich")
        figures = _in_a_process(folder, case, arguments)
        print(f"{case}: " + ", ".join(f"{name} {value:g}" for name, value in figures.items()), file=sys.stderr)
        yield case, figures


def _in_a_process(folder: Path, case: str, arguments: argparse.Namespace) -> dict[str, float]:
    options = [f"--folder={folder}", f"--case={case}", f"--cpu={arguments.cpu}"]
    options += ["--profile"] if arguments.profile else []
    command = [sys.executable, "-m", "bench.plan", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


# The library ------------------------------------------------------------------------------------------------


def make_library(media: Path, files: int) -> None:
    """``files`` photos with sizes between 1 and 8 MB, in 65,536 folders at most, and Immich's marks."""
    random = Random(3)
    for name in LIBRARY_FOLDERS:
        (media / name).mkdir(parents=True)
        (media / name / ".immich").touch()
    for number, folder in enumerate(_folders(media, files)):
        folder.mkdir(parents=True, exist_ok=True)
        at = os.open(folder, os.O_RDONLY)
        for _ in range(_share(files, number)):
            name = f"{uuid.UUID(int=random.getrandbits(128))}.jpg"
            _make(at, name, random.randrange(10**6, 8 * 10**6), random.randrange(3000) * _DAY_NS + 10**18)
        os.close(at)


def _folders(media: Path, files: int) -> list[Path]:
    count = min(65_536, max(1, files // 2))
    return [media / f"upload/{USER}/{number % 256:02x}/{number // 256:02x}" for number in range(count)]


def _share(files: int, number: int) -> int:
    count = min(65_536, max(1, files // 2))
    return files // count + (number < files % count)


def _make(at: int, name: str, size: int, mtime_ns: int) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at)
    os.ftruncate(fd, size)
    os.utime(fd, ns=(mtime_ns, mtime_ns))
    os.close(fd)


def change(media: Path) -> None:
    """One in a hundred: of four such files one is new beside them, one is gone, one has another name and one another
    size."""
    photos = (Path(folder) / name for folder, _, names in os.walk(media / "upload") for name in sorted(names))
    for number, photo in enumerate(photo for photo in photos if photo.suffix == ".jpg"):
        if number % 100 == 0:
            _CHANGES[number // 100 % len(_CHANGES)](photo)


_CHANGES: tuple[Callable[[Path], object], ...] = (
    lambda photo: photo.with_name(f"new-{photo.name}").touch(),
    lambda photo: photo.unlink(),
    lambda photo: photo.rename(photo.with_name(f"moved-{photo.name}")),
    lambda photo: os.truncate(photo, 99),
)


async def _remember(folder: Path) -> None:
    """A manifest that knows every file, as after a run."""
    manifest = await SqliteManifests(folder / FULL).open(UUID)
    for name in LIBRARY_FOLDERS:
        await manifest.apply(_changes(folder / "immich" / name, name.encode()))
    await manifest.commit()
    await manifest.close()


def _changes(source: Path, root: bytes) -> Iterator[Change]:
    for folder in ServerFiles().walk(source, _nothing):
        path = root + b"/" + folder.path if folder.path else root
        for name, (size, mtime_ns, inode) in folder.files.items():
            yield Change(path + b"/" + name, Known(name, name, size, mtime_ns, inode))


def _nothing() -> None:
    pass


# One case -----------------------------------------------------------------------------------------------


class _Disk:
    """What the planning asks of the disk; where it wants a content, the server's is said to be the disk's."""

    async def cluster_bytes(self) -> int:
        return CLUSTER


def measure(folder: Path, case: str, *, cpu: int, profile: bool) -> dict[str, float]:
    """Seconds on the clock and of the processor, megabytes at the peak, and what was decided."""
    os.sched_setaffinity(0, {cpu})
    gc.set_threshold(COLLECT_AFTER)  # as the daemon does
    before = _peak_megabytes()
    profiler = cProfile.Profile() if profile else None
    figures = asyncio.run(_plan(folder, CASES[case], profiler))
    if profiler is not None:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    return figures | {"MB before": round(before, 1)}


async def _plan(folder: Path, state: str, profiler: cProfile.Profile | None) -> dict[str, float]:
    config = Config(media_location=folder / "immich")
    with tempfile.TemporaryDirectory() as scratch:
        world = World(Path(scratch))
        began = time.perf_counter()
        manifest = await SqliteManifests(folder / state).open(UUID)
        work = _work(world, config, manifest)
        opened, processor = time.perf_counter(), time.process_time()
        if profiler is not None:
            work.run.ports = replace(work.run.ports, background=_Profiled(profiler))
        decision = await decide(work, compare=False)
        ended = time.perf_counter()
        figures = {
            "opening, s": round(opened - began, 2),
            "plan, s": round(ended - opened, 2),
            "plan, processor s": round(time.process_time() - processor, 2),
            "MB at the peak": round(_peak_megabytes(), 1),
        }
        await manifest.close()
        return figures | _counts(
            decision
        )  # the decision itself must not leave: asyncio.run has a repr made of its result


def _counts(decision: Decision) -> dict[str, float]:
    steps = decision.steps
    return {
        "files": sum(plan.files for plan in decision.plan.folders),
        "to copy": len(steps.copy),
        "to move": len(steps.moves),
        "to set aside": len(steps.aside),
    }


def _work(world: World, config: Config, manifest: Manifest) -> Work:
    disk = Disk(name="Bench", label="BENCH", uuid=UUID, serial="1", model="Bench", size=10**13, device_node="")
    run = RunContext(
        run_id="bench",
        disk=disk,
        started=world.ports.clock.now(),
        config=config,
        ports=replace(world.ports, background=Threads()),
    )
    return Work(
        run=run,
        target=cast(Target, _Disk()),
        manifest=manifest,
        server_id="bench",
        state=None,
        generation="",
        record=DiskRecord(),
        walk_because=(),
    )


class _Profiled:
    """The ``Background`` port with a profiler, in the loop's own thread."""

    def __init__(self, profiler: cProfile.Profile) -> None:
        self._profiler = profiler

    async def __call__(self, work: Callable[[Callable[[], None]], T], *, what: str) -> T:  # noqa: ARG002
        return self._profiler.runcall(work, _nothing)


def _peak_megabytes() -> float:
    """Of this process alone: ``ru_maxrss`` begins with what the process had that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


if __name__ == "__main__":
    main()
