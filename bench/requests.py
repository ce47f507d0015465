"""What a backup asks of a USB stick: read and write requests, and seconds, beside bare rsync and rclone.

    sudo .venv/bin/python -m bench.requests [--files N] [--tools ours rsync rclone] [--requests-per-second N] [--json]

In the QEMU guest of ``tests/vm``, on the kernel's exFAT. Each tool has a stick of its own and does three things to it: the
first copy, a run with nothing to do, and a run after one file in a hundred has changed. Ours is the whole plug-in by the
installed daemon; the others are mount, copy, sync and unmount. What mounting alone asks for is measured and taken off.
rclone is fetched with apt-get and installed in the guest for this run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.backup import DAEMON, MEDIA, Backup, Ended, marked_image, without_daemon
from tests.vm.disk_requests import (
    PHOTOS,
    Requests,
    make_library,
    of_mounting,
    plug,
    requests,
)
from tests.vm.guest import Guest
from tests.vm.image import guest_image
from tests.vm.installing import install
from tests.vm.journal import Journal

PER_SECOND = 250
STEPS = ("first copy", "no change", "1 % changed")
RUN_SECONDS = 3600.0

CONFIG = f"""
media_location = "{MEDIA}"
config_files = ["/srv/immich"]
disks = {{ automounter_grace_seconds = 0, reserve_megabytes = 0 }}
"""

TOOLS = {
    "rsync": f"cd {MEDIA}; for f in upload library profile; do rsync -rt --modify-window=1 --delete $f/ $to/$f/; done",
    "rclone": f"cd {MEDIA}; for f in upload library profile; do rclone -q --modify-window 2s sync $f $to/$f; done",
}

_SCRIPT = """
set -e
udisksctl mount --no-user-interaction -b {partition} >/dev/null
root=$(findmnt -n -o TARGET {partition}); to=$root/immich-server-backups
mkdir -p $to
( {copy} )
sync -f $root
udisksctl unmount -b {partition} >/dev/null
date +%s%N
"""

_CHANGE = f"""
n=0
find {PHOTOS} -name '*.jpg' | sort | awk 'NR % 100 == 0' | while read -r photo; do
    case $((n % 4)) in
    0|1) head -c 2048 /dev/urandom > "${{photo%.jpg}}-new.jpg";;
    2) rm "$photo";;
    3) head -c 3000 /dev/urandom > "$photo";;
    esac
    n=$((n + 1))
done
chown -R immich:immich {PHOTOS}
"""


@dataclass(frozen=True)
class Figures:
    """One step of one tool: requests beyond those of plugging in and mounting, and seconds from the plug-in on."""

    requests: Requests
    mounting: Requests
    seconds: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="requests to the disk")
    parser.add_argument("--files", type=int, default=4096)
    parser.add_argument("--tools", nargs="+", choices=("ours", *TOOLS), default=["ours", "rsync"])
    parser.add_argument(
        "--requests-per-second", type=int, default=PER_SECOND, help="what the stick can do; 0: no limit"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(Path(folder), arguments.files, arguments.tools, arguments.requests_per_second)
        found = asyncio.run(bench.run())
    if arguments.json:
        print(json.dumps({" / ".join(key): _as_json(value) for key, value in found.items()}, indent=1))
    else:
        _show(found)


@dataclass(frozen=True)
class Bench:
    """What is measured."""

    folder: Path
    files: int
    tools: list[str]
    per_second: int

    async def run(self) -> Mapping[tuple[str, str], Figures]:
        """All steps of all tools, in turns: the library changes between the steps."""
        found: dict[tuple[str, str], Figures] = {}
        image = await asyncio.to_thread(guest_image)
        async with Guest(image) as guest, Journal(guest).followed() as journal:
            backup = await self._set_up(guest, journal)
            for step in STEPS:
                if step == "1 % changed":
                    await guest.sh(_CHANGE, timeout=600)
                for tool in self.tools:
                    found[step, tool] = await self._measure(backup, tool)
                    print(f"{step}, {tool}: {found[step, tool]}", file=sys.stderr)
        return found

    async def _set_up(self, guest: Guest, journal: Journal) -> Backup:
        await install(guest, self.folder)
        backup = Backup(guest, journal)
        await backup.set_up(self.folder)
        await guest.sh(f"systemctl stop {DAEMON}")
        await guest.write("/etc/immich-usb-backup/config.toml", CONFIG)
        await make_library(guest, self.files)
        if "rclone" in self.tools:
            await self._bring_rclone(guest)
        for tool in self.tools:
            mebibytes = 256 + self.files // 20
            await asyncio.to_thread(marked_image, self._image(tool), size_mib=mebibytes)
        return backup

    async def _bring_rclone(self, guest: Guest) -> None:
        await asyncio.to_thread(subprocess.run, ["apt-get", "-q", "download", "rclone"], cwd=self.folder, check=True)
        (package,) = self.folder.glob("rclone_*.deb")
        await guest.put(package, "/root/rclone.deb")
        await guest.sh("dpkg --force-depends -i /root/rclone.deb", timeout=300)

    def _image(self, tool: str) -> Path:
        return self.folder / f"{tool}.img"

    async def _measure(self, backup: Backup, tool: str) -> Figures:
        guest, image = backup.guest, self._image(tool)
        options = ("ro", "rw") if tool == "ours" else ("rw",)
        mounting = await of_mounting(guest, image, *options, per_second=self.per_second)
        await guest.sh(f"find {MEDIA} -type f -print0 | xargs -0 cat > /dev/null; sync", timeout=600)
        if tool == "ours":
            await guest.sh(f"systemctl start {DAEMON}")
            seconds, total = await self._timed(backup, image, self._ours(backup))
            await guest.sh(f"systemctl stop {DAEMON}")
        else:
            async with without_daemon(guest):
                seconds, total = await self._timed(backup, image, self._other(guest, TOOLS[tool]))
        return Figures(total - mounting, mounting, seconds)

    async def _timed(self, backup: Backup, image: Path, ending: Awaitable[int]) -> tuple[float, Requests]:
        """Plug the stick in, and wait for what gives the time of the end, in nanoseconds."""
        guest = backup.guest
        await backup.from_now_on()
        began = int((await guest.sh("date +%s%N")).stdout)
        await plug(guest, image, self.per_second)
        seconds = (await ending - began) / 1e9
        found = await requests(guest, await guest.device("counted"))
        await guest.pull("counted")
        return seconds, found

    async def _ours(self, backup: Backup) -> int:
        ended = await backup.ended(RUN_SECONDS)
        assert ended.outcome == "ok", ended.story
        print(_times(ended), file=sys.stderr)
        return _nanoseconds(ended.events[-1])

    async def _other(self, guest: Guest, copy: str) -> int:
        partition = f"{await guest.device('counted')}1"
        done = await guest.sh(_SCRIPT.format(partition=partition, copy=copy), timeout=RUN_SECONDS)
        return int(done.stdout.split()[-1])


def _nanoseconds(entry: Mapping[str, Any]) -> int:
    return int(entry["__REALTIME_TIMESTAMP"]) * 1000


def _times(ended: Ended) -> str:
    """The journal's lines of a run, with the seconds since the first of them."""
    first = _nanoseconds(ended.events[0])
    return "\n".join(f"{(_nanoseconds(entry) - first) / 1e9:8.2f} {entry['MESSAGE']}" for entry in ended.events)


def _as_json(figures: Figures) -> dict[str, float]:
    return {
        "reads": figures.requests.reads,
        "writes": figures.requests.writes,
        "reads of mounting": figures.mounting.reads,
        "writes of mounting": figures.mounting.writes,
        "seconds": round(figures.seconds, 2),
    }


def _show(found: Mapping[tuple[str, str], Figures]) -> None:
    print(f"{'step':12} {'tool':8} {'reads':>8} {'writes':>8} {'seconds':>9}   mounting: reads, writes")
    for (step, tool), figures in found.items():
        asked, mounting = figures.requests, figures.mounting
        line = f"{step:12} {tool:8} {asked.reads:8} {asked.writes:8} {figures.seconds:9.2f}"
        print(f"{line}   {mounting.reads}, {mounting.writes}")


if __name__ == "__main__":
    main()
