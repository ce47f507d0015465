"""The guest as a user's server: Immich's media location, our service with its configuration, a mail server."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.samples import make_config_files, make_media_location
from tests.vm.guest import Guest
from tests.vm.image import exfat_image, mounted_exfat

MEDIA = "/var/lib/immich"
MAILS = "/root/mails"
OUTCOMES = ("run-ok", "run-partial", "run-failed", "run-interrupted")
MARKER = {"immich-server-backups.txt": b'name = "Blue"\n'}

CONFIG = f"""
media_location = "{MEDIA}"
config_files = ["/srv/immich"]

[disks]
automounter_grace_seconds = 2

[mail]
host = "127.0.0.1"
port = 2525
security = "none"
from = "server@example.org"
to = ["me@example.org"]
"""

_MAIL_SERVER = f"""
mkdir -p {MAILS}
systemd-run --unit=mail-server --collect \
    python3 -u -m aiosmtpd -n -l 127.0.0.1:2525 -c aiosmtpd.handlers.Mailbox {MAILS}/box
"""


class Backup:
    """What the tests do with the server, and what they wait for."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._cursor = ""
        self._began = ""

    async def set_up(self, folder: Path) -> None:
        """Put a library, configuration files and a mail server into place, and start the service."""
        media = folder / "immich"
        make_media_location(media, photos=24, with_template=True)
        make_config_files(folder / "config")
        await self.guest.sh("id immich 2>/dev/null || useradd --system --home-dir /var/lib/immich immich")
        await self.guest.sh(f"rm -rf {MEDIA} /srv/immich; mkdir -p /srv")
        await self.guest.put(media, MEDIA)
        await self.guest.put(folder / "config", "/srv/immich")
        await self.guest.sh(f"chown -R immich:immich {MEDIA} && chmod -R u=rwX,go= {MEDIA}")
        await self.guest.write("/etc/immich-usb-backup/config.toml", CONFIG, mode="0644")
        await self.guest.sh(_MAIL_SERVER)
        await self.guest.sh("systemctl enable --now immich-usb-backup.service")

    async def start_over(self) -> None:
        """The service runs and is idle, its history is empty; waiting begins here."""
        await self.guest.sh(
            "systemctl stop immich-usb-backup.service; rm -f /var/lib/immich-usb-backup/state.db;"
            f"rm -f {MAILS}/box/new/*; sysctl -q vm.dirty_bytes=0 vm.dirty_ratio=20;"
            f"rm -rf {MEDIA}/upload/big; systemctl start immich-usb-backup.service"
        )
        await self.from_now_on()

    async def from_now_on(self) -> None:
        """Wait only for what comes after this moment."""
        shown = await self.guest.sh("journalctl -n 0 --show-cursor")
        self._cursor = self._began = shown.stdout.rpartition("-- cursor: ")[2].strip()

    async def event(self, *codes: str, timeout: float = 120, **fields: str) -> Mapping[str, Any]:
        """The first journal entry with one of these codes; waiting goes on after it."""
        one_of = "|".join(f'"IMMICH_BACKUP_EVENT":"{code}"' for code in codes)
        greps = [one_of, *(f'"IMMICH_BACKUP_{name.upper()}":"{value}"' for name, value in fields.items())]
        wanted = " | ".join(f"grep -E {shlex.quote(grep)}" for grep in greps)
        # Filtered here: journalctl 252 skips the first match after a cursor that itself is none.
        entries = f"journalctl -q --after-cursor={shlex.quote(self._cursor)} -o json --all"
        try:
            line = await self.guest.until(f"{entries} | {wanted} | head -n 1 | grep .", timeout=timeout)
        except Exception as error:
            error.add_note(await self.story())
            raise
        entry: dict[str, Any] = json.loads(line)
        self._cursor = entry["__CURSOR"]
        return entry

    async def order(self, *codes: str) -> list[str]:
        """Those of these codes that came since `from_now_on`, in the journal's order."""
        entries = f"journalctl -q --after-cursor={shlex.quote(self._began)} -o json --all"
        lines = (await self.guest.sh(f"{entries} | grep IMMICH_BACKUP_EVENT")).stdout.splitlines()
        found = [str(json.loads(line).get("IMMICH_BACKUP_EVENT")) for line in lines]
        return [code for code in found if code in codes]

    async def outcome(self, timeout: float = 180) -> str:
        """How the next run ends."""
        entry = await self.event(*OUTCOMES, timeout=timeout)
        return str(entry["IMMICH_BACKUP_OUTCOME"])

    async def story(self) -> str:
        """What the journal says, for people."""
        units = "-u immich-usb-backup -u immich-usb-backup-notifier -u udisks2"
        return (await self.guest.sh(f"journalctl -q {units} -o short-monotonic -n 80", check=False)).stdout

    async def report(self) -> Mapping[str, Any]:
        """The newest run in the history."""
        shown = await self.guest.sh("/usr/local/bin/immich-usb-backup history -n 1 --json")
        found: dict[str, Any] = json.loads(shown.stdout)[0]["report"]
        return found

    async def is_mounted(self, disk: str) -> bool:
        """Whether any file system of a disk such as /dev/sda is mounted."""
        return (await self.guest.sh(f"grep -q '^{disk}' /proc/mounts", check=False)).returncode == 0

    async def make_it_slow(self, megabytes: int = 48) -> None:
        """Many new photos, and so little room for unwritten data that copying goes at the stick's speed."""
        await self.guest.sh(
            f"sysctl -q vm.dirty_bytes=4194304; mkdir -p {MEDIA}/upload/big;"
            f"for i in $(seq {megabytes}); do head -c 1M /dev/urandom > {MEDIA}/upload/big/$i.jpg; done;"
            f"chown -R immich:immich {MEDIA}/upload/big"
        )

    async def differences(self, image: Path) -> list[str]:
        """What differs between the guest's library and the backup on a stick (pulled); empty when nothing does."""
        sums = "find upload library profile -type f ! -name .immich -print0 | sort -z | xargs -0 sha256sum"
        source = await self.guest.sh(f"cd {MEDIA} && {sums}")
        return sorted(set(source.stdout.splitlines()) ^ set(_sums_on(image)))


def _sums_on(image: Path) -> list[str]:
    lines = []
    with mounted_exfat(image) as root:
        backup = root / "immich-server-backups"
        for stage in ("upload", "library", "profile"):
            files = [path for path in (backup / stage).rglob("*") if path.is_file() and path.name != ".immich"]
            lines += [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(backup)}" for f in files]
    return lines


def marked_image(
    path: Path, *, partitioned: bool = True, size_mib: int = 256, extra: Mapping[str, bytes] | None = None
) -> Path:
    """A stick with the opt-in marker, and other things of its owner's."""
    return exfat_image(path, size_mib=size_mib, partitioned=partitioned, populate={**MARKER, **(extra or {})})
