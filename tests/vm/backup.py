"""The guest as a user's server: Immich's media location, our service with its configuration, a mail server."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.samples import make_config_files, make_media_location
from tests.vm.guest import Completed, Guest, GuestError
from tests.vm.image import exfat_image, mounted_exfat
from tests.vm.journal import Entry, Journal, place

MEDIA = "/var/lib/immich"
MAILS = "/root/mails"
_CODE = "IMMICH_BACKUP_EVENT"
OUTCOMES = ("run-ok", "run-partial", "run-failed", "run-interrupted")
MARKER = {"immich-server-backups.txt": b'name = "Blue"\n'}

DAEMON = "immich-usb-backup.service"
PRISTINE = "/root/pristine"
STATE = "/var/lib/immich-usb-backup"
OURS = "immich-server-backups"
COMMAND = "/usr/local/bin/immich-usb-backup"
PACKAGE = f"$(echo $(dirname $(readlink -f {COMMAND}))/../lib/python3*/site-packages/immich_usb_backup)"

CONFIG = f"""
media_location = "{MEDIA}"
config_files = ["/srv/immich"]
MORE
[disks]
automounter_grace_seconds = GRACE
reserve_megabytes = 0
"""

_MAIL = """
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

# Whatever an earlier test left, also one that failed: the service can be started, goes on, and nobody else has the stick.
_ALLOWED = f"""
case $(systemctl is-enabled {DAEMON} 2>/dev/null) in masked*)
    systemctl unmask --runtime {DAEMON}; systemctl unmask {DAEMON};;
esac
systemctl kill --signal=SIGCONT {DAEMON} 2>/dev/null
for path in /mnt/stick /mnt/it /mnt; do mountpoint -q $path && umount -l $path; done
true
"""
_IS_IDLE = (
    "busctl call io.github.immich_usb_backup1 /io/github/immich_usb_backup1 io.github.immich_usb_backup1.Manager"
    """ GetState | grep -q '"running" b false'"""
)
_IDLE_SECONDS = 180.0

_AS_IT_WAS = f"sysctl -q vm.dirty_bytes=0 vm.dirty_ratio=20; rsync -a --delete {PRISTINE}/ {MEDIA}/"


@dataclass(frozen=True)
class Ended:
    """A run that is over, by its lines in the journal."""

    outcome: str
    files: int
    findings: tuple[str, ...]
    events: tuple[Mapping[str, Any], ...]

    def texts(self, finding: str) -> str:
        """What was said under a finding's code."""
        return "\n".join(str(e["MESSAGE"]) for e in self.events if e.get("IMMICH_BACKUP_FINDING") == finding)

    def one(self, code: str) -> Mapping[str, Any]:
        """The last line with this event code."""
        return [e for e in self.events if e.get("IMMICH_BACKUP_EVENT") == code][-1]

    @property
    def walked(self) -> bool:
        """Whether the disk was looked at from end to end."""
        return any(e.get("IMMICH_BACKUP_EVENT") == "disk-walked" for e in self.events)

    @property
    def story(self) -> str:
        """All that was said, for people."""
        return "\n".join(str(event["MESSAGE"]) for event in self.events)


_MAKE_PHOTOS = """
import json, os, random, sys
folder, names, seed, kib = sys.argv[1:]
chance = random.Random(int(seed))
for name in json.loads(names):
    path = f"{folder}/{name}.jpg"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(chance.randbytes(chance.randint(1, int(kib) * 1024)))
"""


class Backup:
    """What the tests do with the server, and what they wait for."""

    def __init__(self, guest: Guest, journal: Journal) -> None:
        self.guest = guest
        self._journal = journal
        self._place = self._began = 0
        self._configured = ("", 0, False)

    async def set_up(self, folder: Path) -> None:
        """Put a library, configuration files and a mail server into place, and start the service."""
        await self.put_library(folder)
        await self.configure()
        await self.guest.sh(_MAIL_SERVER)
        await self.guest.sh("systemctl enable --now immich-usb-backup.service")

    async def put_library(self, folder: Path) -> None:
        """Put a library and configuration files into place, made in a folder of the host's."""
        media = folder / "immich"
        make_media_location(media, photos=24, with_template=True)
        make_config_files(folder / "config")
        await self.guest.sh("id immich 2>/dev/null || useradd --system --home-dir /var/lib/immich immich")
        await self.guest.sh(f"rm -rf {MEDIA} /srv/immich; mkdir -p /srv")
        await self.guest.put(media, MEDIA)
        await self.guest.put(folder / "config", "/srv/immich")
        await self.guest.sh(f"chown -R immich:immich {MEDIA} && chmod -R u=rwX,go= {MEDIA}")
        await self.guest.sh(f"rm -rf {PRISTINE}; cp -a {MEDIA} {PRISTINE}")

    async def configure(self, more: str = "", *, grace_seconds: int = 2, mail: bool = True) -> None:
        """Write the configuration, with further lines at its top; it holds from the next start or reload on. Mail
        costs each run some seconds of the guest's time."""
        self._configured = (more, grace_seconds, mail)
        config = CONFIG.replace("MORE", more).replace("GRACE", str(grace_seconds)) + (_MAIL if mail else "")
        await self.guest.write("/etc/immich-usb-backup/config.toml", config, mode="0644")

    @asynccontextmanager
    async def altered(self, *constants: tuple[str, str, int]) -> AsyncIterator[None]:
        """The installed program with other constants than it has, each as file, name and value; from the service's next
        start on. What waits for minutes, or works by the ten thousand, need not do so in a test."""
        change = "; ".join(
            f"sed -i 's/^{name} = .*/{name} = {value}/' {path}; grep -q '^{name} = {value}$' {path}"
            for path, name, value in constants
        )
        await self.guest.sh(f"set -e; rm -rf /root/unaltered; cp -a {PACKAGE} /root/unaltered; cd {PACKAGE}; {change}")
        try:
            yield
        finally:
            await self.guest.sh(f"cp -a /root/unaltered/. {PACKAGE}; systemctl restart immich-usb-backup.service")

    def spoil(self) -> None:
        """Somebody else has changed the configuration: the next test begins with its own."""
        self._configured = ("spoilt", 0, False)

    async def start_over(self, more: str = "", *, grace_seconds: int = 2, mail: bool = True) -> None:
        """The service runs and is idle, without memories and with the library as it was; waiting begins here."""
        await self.guest.sh(_ALLOWED)
        await self.guest.sh(f"systemctl stop {DAEMON}")
        await self.configure(more, grace_seconds=grace_seconds, mail=mail)
        await self.guest.sh(
            f"rm -rf {STATE}/state.db* {STATE}/manifests {STATE}/server-id {STATE}/*.json {MAILS}/box/new/*; {_AS_IT_WAS}"
        )
        await self.guest.sh(f"systemctl start {DAEMON}")
        await self.from_now_on()

    async def ready(self, *, grace_seconds: int = 0, mail: bool = False) -> None:
        """The service runs so configured and is idle, and the library is as it was; waiting begins here. What it remembers
        are other sticks, unless it has to be started anew."""
        if self._configured == ("", grace_seconds, mail):
            await self.as_it_was()
        else:
            await self.start_over(grace_seconds=grace_seconds, mail=mail)

    async def as_it_was(self) -> None:
        """The library as it was, while the service goes on: for new sticks, of which it knows nothing; waiting begins here."""
        await self._idle()
        await self.guest.sh(_AS_IT_WAS)
        await self.from_now_on()

    async def _idle(self) -> None:
        """The service runs, and the run that an earlier test may have left is over."""
        await self.guest.sh(f"{_ALLOWED}systemctl start {DAEMON}")
        try:
            await self.guest.until(_IS_IDLE, timeout=_IDLE_SECONDS)
        except GuestError:
            await self.guest.sh(f"systemctl kill --signal=SIGKILL {DAEMON}; systemctl restart {DAEMON}")

    async def from_now_on(self) -> None:
        """Wait only for what comes after this moment."""
        self._place = self._began = await self._journal.now()

    async def event(self, *codes: str, timeout: float = 120, **fields: str) -> Entry:
        """The first journal entry with one of these codes; waiting goes on after it."""
        wanted = {f"IMMICH_BACKUP_{name.upper()}": value for name, value in fields.items()}

        def is_it(entry: Entry) -> bool:
            return entry.get(_CODE) in codes and all(entry.get(name) == value for name, value in wanted.items())

        try:
            entry = await self._journal.first(self._place, is_it, timeout=timeout, what=f"{codes} {fields}")
        except GuestError as error:
            error.add_note(await self.story())
            raise
        self._place = place(entry["__CURSOR"])
        return entry

    async def order(self, *codes: str) -> list[str]:
        """Those of these codes that came since `from_now_on`, in the journal's order."""
        return [entry[_CODE] for entry in self._journal.since(self._began) if entry.get(_CODE) in codes]

    async def outcome(self, timeout: float = 180) -> str:
        """How the next run ends."""
        entry = await self.event(*OUTCOMES, timeout=timeout)
        return str(entry["IMMICH_BACKUP_OUTCOME"])

    async def ended(self, timeout: float = 180) -> Ended:
        """The next run's end, and its lines in the journal."""
        last = await self.event(*OUTCOMES, timeout=timeout)
        run = last["IMMICH_BACKUP_RUN"]
        events = tuple(entry for entry in self._journal.since(0) if entry.get("IMMICH_BACKUP_RUN") == run)
        findings = tuple(str(last["IMMICH_BACKUP_FINDINGS"]).splitlines())
        return Ended(last["IMMICH_BACKUP_OUTCOME"], int(last["IMMICH_BACKUP_FILES"]), findings, events)

    async def plug_in(self, image: Path, *, timeout: float = 180, **options: Any) -> Ended:
        """Plug the stick `blue` in, anew if it is, wait for the end of the run, and pull it."""
        await self.guest.plug("blue", image, **options)
        ended = await self.ended(timeout)
        await self.guest.pull("blue")
        return ended

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

    async def python(self, program: str, *arguments: str) -> str:
        """What a Python program says in the guest."""
        return (await self.guest.sh(f"python3 - {shlex.join(arguments)} <<'END'\n{program}\nEND")).stdout

    async def make_photos(self, folder: str, names: Iterable[object], *, seed: int, kib: int = 10) -> None:
        """Photos of up to so many KiB in a folder of the media location."""
        listed = json.dumps([str(name) for name in names])
        await self.python(_MAKE_PHOTOS, f"{MEDIA}/{folder}", listed, str(seed), str(kib))

    @asynccontextmanager
    async def stick_mounted(self, name: str = "blue", *, read_only: bool = False) -> AsyncIterator[str]:
        """A plugged stick that no run uses, in the hands of somebody else in the guest: where it is mounted."""
        partition = f"{await self.guest.device(name)}1"
        options = "ro" if read_only else "rw"
        await self.guest.sh(f"mkdir -p /mnt/stick; mount -t exfat -o {options},iocharset=utf8 {partition} /mnt/stick")
        try:
            yield "/mnt/stick"
        finally:
            await self.guest.sh("umount /mnt/stick")

    async def as_nobody(self, *arguments: str) -> Completed:
        """Our command, run by a user without any rights."""
        return await self.guest.sh(f"runuser -u nobody -- {COMMAND} {shlex.join(arguments)}", check=False)

    async def make_it_slow(self, megabytes: int = 24) -> None:
        """Many new photos, and so little room for unwritten data that copying goes at the stick's speed."""
        await self.guest.sh(
            f"sysctl -q vm.dirty_bytes=4194304; mkdir -p {MEDIA}/upload/big;"
            f"for i in $(seq {megabytes}); do head -c 1M /dev/urandom > {MEDIA}/upload/big/$i.jpg; done;"
            f"chown -R immich:immich {MEDIA}/upload/big"
        )

    async def originals(self) -> dict[str, str]:
        """Hashes of the originals on the server, by their paths."""
        sums = "find upload library profile -type f ! -name .immich -print0 | sort -z | xargs -0 sha256sum"
        lines = (await self.guest.sh(f"cd {MEDIA} && {sums}")).stdout.splitlines()
        return {line[66:]: line[:64] for line in lines}

    async def differences(self, image: Path) -> list[tuple[str, str]]:
        """What differs between the guest's library and the backup on a stick (pulled); empty when nothing does."""
        with mounted_exfat(image) as root:
            there = {path: sha256(root / OURS / path) for path in originals_below(root / OURS)}
        return sorted(set((await self.originals()).items()) ^ set(there.items()))


@asynccontextmanager
async def without_daemon(guest: Guest) -> AsyncIterator[None]:
    """Nobody takes a stick that is plugged in, installed or not. Afterwards the service runs if it did before."""
    was = (await guest.sh(f"systemctl is-active {DAEMON}", check=False)).stdout.strip()
    await guest.sh(f"systemctl mask --runtime {DAEMON} 2>&1; systemctl stop {DAEMON} 2>/dev/null; true")
    try:
        yield
    finally:
        start = f"systemctl start {DAEMON}" if was in {"active", "activating"} else "true"
        await guest.sh(f"systemctl unmask --runtime {DAEMON}; {start}")


def originals_below(backup: Path) -> list[str]:
    """The originals in a backup, by their paths from it on."""
    found = [path for stage in ("upload", "library", "profile") for path in (backup / stage).rglob("*")]
    return [str(path.relative_to(backup)) for path in found if path.is_file() and path.name != ".immich"]


def sha256(path: Path) -> str:
    """The hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def everything_else(image: Path) -> dict[str, str]:
    """Hashes of all files on a stick but ours, and the names of its other folders."""
    with mounted_exfat(image) as root:
        return hashes_of_others(root)


def hashes_of_others(root: Path) -> dict[str, str]:
    """The same of a stick that is mounted."""
    others = [top for top in root.iterdir() if not top.name.startswith(OURS)]
    found = [path for top in others for path in (top, *top.rglob("*"))]
    return {str(path.relative_to(root)): sha256(path) if path.is_file() else "" for path in found}


def marked_image(
    path: Path, *, partitioned: bool = True, size_mib: int = 256, extra: Mapping[str, bytes] | None = None
) -> Path:
    """A stick with the opt-in marker, and other things of its owner's."""
    return exfat_image(path, size_mib=size_mib, partitioned=partitioned, populate={**MARKER, **(extra or {})})
