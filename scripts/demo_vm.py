"""The demo with a USB stick in a QEMU guest, and the service installed there as a user would install it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from tests.support import samples
from tests.vm.guest import Guest
from tests.vm.image import exfat_image, guest_image, mounted_exfat
from tests.vm.installing import install

from scripts.demo import FOLDERS, MARKER_TEXT, compare, disk_mib, sample, say, show, title

MEDIA = "/var/lib/immich"
CONFIG = f'media_location = "{MEDIA}"\nconfig_files = ["/srv/immich"]\n'
_RUN_SECONDS = 900.0
_FOLLOW = (
    "for i in $(seq 4000); do journalctl -q -u immich-usb-backup -o cat --after-cursor=CURSOR > /tmp/now;"
    " grep -qE 'safe to unplug|failed|interrupted' /tmp/now && break; sleep 0.3; done; cat /tmp/now"
)


async def in_a_guest(library: Path | None) -> int:
    """Boot, install, plug a stick in, show the journal and what lies on the stick. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="immich-usb-backup-demo-") as name:
        folder = Path(name)
        title("Preparing")
        library = library or sample(folder)
        say(
            "A Debian guest (built once, kept in ~/.cache/immich-usb-backup; under software emulation it takes its time)"
        )
        image = await asyncio.to_thread(guest_image)
        async with Guest(image) as guest:
            say("Booted. Installing there with ./scripts/install")
            await install(guest, folder / "install")
            await set_up(guest, library, folder)
            return await plug_in(guest, library, folder)


async def set_up(guest: Guest, library: Path, folder: Path) -> None:
    """Immich's files, readable by nobody else, and three lines of configuration."""
    samples.make_config_files(folder / "compose")
    copy = folder / "copy"
    for name in filter(lambda name: (library / name).is_dir(), (*FOLDERS, "backups")):
        await asyncio.to_thread(shutil.copytree, library / name, copy / name, symlinks=True)
    await guest.sh("useradd --system --home-dir /var/lib/immich immich")
    await guest.put(copy, MEDIA)
    await guest.put(folder / "compose", "/srv/immich")
    await guest.sh(f"chown -R immich:immich {MEDIA} && chmod 0700 {MEDIA}")
    await guest.write("/etc/immich-usb-backup/config.toml", CONFIG, mode="0644")
    await guest.sh("systemctl enable --now immich-usb-backup.service")


async def plug_in(guest: Guest, library: Path, folder: Path) -> int:
    """The user's part, and what the journal says."""
    stick = folder / "stick.img"
    exfat_image(stick, size_mib=disk_mib(library), populate={"immich-server-backups.txt": MARKER_TEXT.encode()})
    cursor = (await guest.sh("journalctl -n 0 --show-cursor")).stdout.rpartition("-- cursor: ")[2].strip()
    title("The stick is plugged in: journalctl -u immich-usb-backup")
    await guest.plug("blue", stick)
    shown = await guest.sh(_FOLLOW.replace("CURSOR", f"'{cursor}'"), timeout=_RUN_SECONDS)
    for line in shown.stdout.splitlines():
        say(line)
    title("systemctl status")
    status = await guest.sh("systemctl status immich-usb-backup.service --no-pager -n 0")
    for line in status.stdout.splitlines():
        say(line)
    await guest.pull("blue")
    title("What lies on the stick, pulled out and read elsewhere")
    with mounted_exfat(stick) as root:
        show(root)
        return compare(library, root / "immich-server-backups")
