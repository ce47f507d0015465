"""What the backup costs beside bare rsync, and what the daemon costs while it waits.

    sudo .venv/bin/python -m bench.pipeline [--files N] [--kilobytes N] [--rounds N] [--idle-seconds N]

Each round makes a fresh exFAT disk twice: once for the daemon (from the plug-in to the outcome, minus the automounter's
grace, which is set to 0), once for bare rsync, sync and unmount of the same folders on the same kind of disk. Both read
a warm cache. The figures are medians of the rounds; the ratio is what counts, as a busy machine bends both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.support import host, samples
from tests.support.daemon import DaemonProcess, daemon_process

FOLDERS = ("upload", "library", "profile")
OUTCOMES = ("run-ok", "run-partial", "run-failed", "run-interrupted")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ours:
    """One backup by the daemon: seconds of wall time, its own CPU seconds, memory in kB, seconds of each step."""

    wall: float
    steps: Mapping[str, float]
    own_cpu: float
    idle_memory: int
    peak_memory: int
    idle_wakeups: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="the backup beside bare rsync")
    parser.add_argument("--files", type=int, default=600)
    parser.add_argument("--kilobytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    parser.add_argument("--no-read-back", action="store_true", help="do not read back what was copied, as the others")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        media = make_library(folder / "immich", arguments.files, arguments.kilobytes)
        mebibytes = 2 * arguments.files * arguments.kilobytes // 1024 + 256
        bus = stack.enter_context(host.system_bus())
        stack.enter_context(host.udev())
        stack.enter_context(host.udisks(bus))
        bench = Bench(folder, media, mebibytes, bus, arguments.idle_seconds, read_back=not arguments.no_read_back)
        rounds = [bench.one_round(number) for number in range(arguments.rounds)]
    show(rounds, arguments.idle_seconds, as_json=arguments.json)


def make_library(path: Path, files: int, kilobytes: int) -> Path:
    """A media location with incompressible files, in Immich's folders of two levels."""
    media = samples.make_media_location(path, photos=3)
    for number in range(files):
        place = media.path / f"upload/user/{number % 16:02x}/{number % 251:02x}/{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.urandom(kilobytes * 1024))
    return media.path


@dataclass(frozen=True)
class Bench:
    """What all rounds share."""

    folder: Path
    media: Path
    mebibytes: int
    bus: host.Bus
    idle_seconds: float
    read_back: bool = True

    def one_round(self, number: int) -> tuple[Ours, float]:
        """The daemon and bare rsync, in turns first."""
        if number % 2:
            bare = self.bare_rsync()
            return asyncio.run(self.ours(number)), bare
        mine = asyncio.run(self.ours(number))
        return mine, self.bare_rsync()

    async def ours(self, number: int) -> Ours:
        """Plug a disk in and wait for the outcome."""
        config = self.folder / "config.toml"
        disks = '[disks]\ntransports = ["loop"]\nautomounter_grace_seconds = 0\nreserve_megabytes = 0\n'
        reading = f"[verification]\nread_back = {str(self.read_back).lower()}\nminutes = 0\n"
        config.write_text(f'media_location = "{self.media}"\n{disks}{reading}')
        with host.exfat_disk(self.mebibytes, "Bench", populate=host.make_marker) as disk:
            disk.detach()
            state = self.folder / f"state-{number}"
            async with daemon_process(config, state, environment=self.bus.env) as daemon:
                process = daemon.process.pid
                idle_memory, wakeups = await idle(process, self.idle_seconds)
                cpu, began = cpu_seconds(process), time.monotonic()
                plugging = asyncio.create_task(asyncio.to_thread(disk.attach))
                await daemon.event("run-started", timeout=60)
                started = time.monotonic() - began
                ended = await daemon.event(*OUTCOMES, timeout=1800)
                wall = time.monotonic() - began
                await plugging
                assert ended["outcome"] == "ok", daemon.story()
                own_cpu, peak = cpu_seconds(process) - cpu, memory(process, "VmHWM")
                steps = {"until run-started": started} | stages(daemon)
                return Ours(wall, steps, own_cpu, idle_memory, peak, wakeups)

    def bare_rsync(self) -> float:
        """Attach, mount, rsync each folder, sync, unmount: what a script would do."""
        with host.exfat_disk(self.mebibytes, "Bench") as disk:
            disk.detach()
            began = time.monotonic()
            disk.attach()
            with disk.mounted() as root:
                for name in FOLDERS:
                    source = f"{self.media / name}/"
                    subprocess.run(["rsync", "-rt", "--modify-window=1", source, f"{root / name}/"], check=True)
                subprocess.run(["sync", "-f", str(root)], check=True)
            return time.monotonic() - began


def stages(daemon: DaemonProcess) -> dict[str, float]:
    """The seconds of each stage, as the daemon gives them."""
    done = [entry for entry in daemon.entries if entry.get("code") == "stage-done"]
    return {str(entry["stage"]): float(entry["seconds"]) for entry in done}


async def idle(process: int, seconds: float) -> tuple[int, int]:
    """Memory in kB, and how often the daemon woke up while nothing happened."""
    before = switches(process)
    await asyncio.sleep(seconds)
    return memory(process, "VmRSS"), switches(process) - before


def switches(process: int) -> int:
    """Voluntary context switches of all threads."""
    total = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return total


def memory(process: int, field: str) -> int:
    """A field of /proc/PID/status in kB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def cpu_seconds(process: int) -> float:
    """The process's own CPU time, without its children's."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def show(rounds: list[tuple[Ours, float]], idle_seconds: float, *, as_json: bool) -> None:
    """Print medians."""
    mine = [one for one, _ in rounds]
    figures = {
        "wall_seconds": statistics.median(one.wall for one in mine),
        "bare_rsync_seconds": statistics.median(bare for _, bare in rounds),
        "ratio": statistics.median(one.wall / bare for one, bare in rounds),
        "own_cpu_seconds": statistics.median(one.own_cpu for one in mine),
        "own_cpu_share": statistics.median(one.own_cpu / one.wall for one in mine),
        "idle_memory_kb": max(one.idle_memory for one in mine),
        "peak_memory_kb": max(one.peak_memory for one in mine),
        f"idle_wakeups_in_{idle_seconds:g}_s": max(one.idle_wakeups for one in mine),
    }
    for step in mine[0].steps:
        figures[f"seconds: {step}"] = statistics.median(one.steps[step] for one in mine)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:24} {value:10.2f}" if isinstance(value, float) else f"{name:24} {value:10}")


if __name__ == "__main__":
    main()
