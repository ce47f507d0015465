"""Counting what a disk is asked for.

exFAT reads a folder sector by sector and leaves it to the kernel to put the requests together while the disk is busy. How
many there are in the end depends on how fast the disk answers: so the disks that are counted at do ``PER_SECOND`` requests
in a second, as a hard disk does that has to look for each, and the numbers hardly depend on how busy the machine is.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.vm.backup import MEDIA, Backup, without_daemon
from tests.vm.guest import Guest

PER_SECOND = 50
PHOTOS = f"{MEDIA}/upload/5f0c1d7e-8a3b-4c55-9e0f-2b7a6d1c9e44"

_LIBRARY = """
import os, random, sys
top, files = sys.argv[1], int(sys.argv[2])
chance = random.Random(3)
for number in range(files):
    place = number // 4  # Immich spreads photos over 65,536 folders: a few in each
    folder = f"{top}/{place % 256:02x}/{place // 256:02x}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{chance.getrandbits(128):032x}.jpg", "wb") as file:
        file.write(chance.randbytes(2048))
"""

# The numbers must stand still for a second: udev and UDisks2 look at a disk once more after each unmount.
_SETTLED = """
udevadm settle
before=; now=$(cat /sys/block/{disk}/stat); still=0
while [ $still -lt 4 ]; do
    sleep 0.25; before=$now; now=$(cat /sys/block/{disk}/stat)
    if [ "$now" = "$before" ]; then still=$((still + 1)); else still=0; fi
done
echo $now
"""


@dataclass(frozen=True)
class Requests:
    """Requests that a disk has completed."""

    reads: int
    writes: int
    flushes: int = 0

    def __sub__(self, other: Requests) -> Requests:
        return Requests(self.reads - other.reads, self.writes - other.writes, self.flushes - other.flushes)


async def requests(guest: Guest, disk: str) -> Requests:
    """Those of a disk such as ``/dev/sda`` since it was plugged in, once it has come to rest."""
    fields = (await guest.sh(_SETTLED.format(disk=Path(disk).name))).stdout.split()
    return Requests(reads=int(fields[0]), writes=int(fields[4]), flushes=int(fields[15]) if len(fields) > 15 else 0)


async def plug(guest: Guest, image: Path, per_second: int = PER_SECOND) -> None:
    """Plug ``counted`` in; it answers so many requests in a second. 0: as many as it can."""
    await guest.plug("counted", image)
    group = guest._plugged["counted"].throttle
    limits: dict[str, object] = {"path": f"/objects/{group}", "property": "limits", "value": {"iops-total": per_second}}
    await guest.qmp("qom-set", limits)


async def of_a_plug_in(backup: Backup, image: Path, *, per_second: int = PER_SECOND) -> Requests:
    """One backup by the daemon, from the plug-in to the rest after the unmount."""
    await backup.from_now_on()
    await plug(backup.guest, image, per_second)
    assert await backup.outcome(timeout=600) == "ok", await backup.story()
    found = await requests(backup.guest, await backup.guest.device("counted"))
    await backup.guest.pull("counted")
    return found


async def of_mounting(guest: Guest, image: Path, *options: str, per_second: int = PER_SECOND) -> Requests:
    """Plugging in and mounting alone, once for each of ``options`` (such as ``ro``)."""
    async with without_daemon(guest):
        await plug(guest, image, per_second)
        disk = await guest.device("counted")
        for option in options:
            mount = f"udisksctl mount --no-user-interaction -b {disk}1 -o {option}"
            await guest.sh(f"{mount} && udisksctl unmount -b {disk}1 && udevadm settle")
        found = await requests(guest, disk)
        await guest.pull("counted")
    return found


async def make_library(guest: Guest, files: int) -> None:
    """Only these photos in ``upload/``, 2 kB each, four in a folder."""
    await guest.write("/root/make-library.py", _LIBRARY)
    await guest.sh(
        f"cd {MEDIA} && find upload library profile -mindepth 1 ! -name .immich -delete;"
        f"python3 /root/make-library.py {shlex.quote(PHOTOS)} {files} && chown -R immich:immich upload",
        timeout=600,
    )
