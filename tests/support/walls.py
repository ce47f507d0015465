"""What each unit's walls must hold back, and what must work within them; the probe that tries is ``walls_probe.py``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROBE = Path(__file__).with_name("walls_probe.py")
PLACE = "/usr/local/share/walls"
"""Where the probe and what it needs are put."""

MEDIA, STATE, SETTINGS = "/var/lib/immich", "/var/lib/immich-usb-backup", "/etc/immich-usb-backup"
OPENED = "/home/walls/opened"
"""A configured folder, and one beside it that is not configured."""
BESIDE = "/home/walls/beside"
OTHER_DISK = "/mnt/walls"
NOTIFIER_STATE = "/var/lib/immich-usb-backup-notifier"
DUMPS = "/var/lib/immich-usb-backup-dumps"
BUS = "/run/dbus/system_bus_socket"
MAIL = "/var/spool/postfix/public/walls"
"""As a mail server's sockets are: open to everybody, in a folder that is not. The service's capability opens the folder."""
_LISTEN = f"import os, socket, signal; os.umask(0); one = socket.socket(1); one.bind({MAIL!r}); one.listen(99); signal.pause()"

PREPARE = f"""
mkdir -p {PLACE} {OPENED} {BESIDE} /root/walls {OTHER_DISK} {MEDIA}/walls {MEDIA}/upload
install -d -o immich-usb-backup -g immich-usb-backup-notify -m 2770 {STATE}/outbox
touch {STATE}/outbox/.walls
install -d -o immich-usb-backup-notify -g immich-usb-backup-notify -m 700 {NOTIFIER_STATE}; mkdir -p {NOTIFIER_STATE}/walls
install -d -o immich-usb-backup-dump -g immich-usb-backup-dump -m 700 {DUMPS}
for file in {OPENED}/it {BESIDE}/it /root/walls/it {MEDIA}/walls/it; do echo content > $file; chmod 644 $file; done
chmod 755 /home/walls {OPENED}
chmod 1777 {BESIDE} {MEDIA}/walls
mountpoint -q {OTHER_DISK} || mount -t tmpfs -o mode=1777 tmpfs {OTHER_DISK}
cp -p /etc/shadow {PLACE}/shadow-was
for name in smtp-password immich-api-key database-password ping-url push-urls; do
    test -e {SETTINGS}/$name || {{ (umask 077; echo secret > {SETTINGS}/$name); echo {SETTINGS}/$name >> {PLACE}/made; }}
done
cp /usr/bin/id {PLACE}/setuid-id; chmod 4755 {PLACE}/setuid-id
systemd-run --quiet --unit=walls-other sleep infinity
rm -f {MAIL}; install -d -m 700 {MAIL.rpartition("/")[0]}
systemd-run --quiet --unit=walls-mail python3 -c {shlex.quote(_LISTEN)}
until test -S {MAIL}; do sleep 0.1; done
"""
"""Makes what the probe tries to reach. All of it may be read and written by everybody, where only the walls shall count."""

UNDO = f"""
systemctl stop walls-other.service walls-mail.service; rm -f {MAIL}; umount {OTHER_DISK}
while read -r name; do rm -f "$name"; done < {PLACE}/made
rm -rf {NOTIFIER_STATE}/walls {PLACE} /home/walls /root/walls {MEDIA}/walls {OTHER_DISK} {STATE}/outbox/.walls
"""

SEEN = (f"read {OPENED}/it", f"read {MEDIA}/walls/it", f"list {OPENED}", f"list {MEDIA}")
_NET = ("IPv4", "IPv6")
_BUS = f"connect {BUS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walled:
    """A unit, an instance of it to start, and the tries that succeed within its walls: these and no others."""

    unit: str
    start: str
    may: frozenset[str]
    scratch: str = ""


def _unit(name: str, *may: str, instance: str = "", scratch: str = "") -> Walled:
    unit = f"immich-usb-backup{name}.service"
    return Walled(unit=unit, start=unit.replace("@", f"@{instance}"), may=frozenset((*may, _BUS)), scratch=scratch)


UNITS = (
    _unit("", *SEEN, f"write {STATE}", f"write {STATE}/outbox", f"read {SETTINGS}/config.toml", scratch=STATE),
    _unit(
        "-notifier",
        *(*_NET, f"write {STATE}/outbox", f"list {NOTIFIER_STATE}", f"read {SETTINGS}/config.toml"),
        scratch=f"{STATE}/outbox",
    ),
    _unit("-dump", *_NET, f"write {DUMPS}", f"read {SETTINGS}/config.toml", scratch=DUMPS),
    _unit("-remind", f"write {STATE}", f"write {STATE}/outbox", f"read {SETTINGS}/config.toml", scratch=STATE),
    _unit("-check@", f"read {SETTINGS}/config.toml", instance="walls"),
    _unit("-repair@", f"read {SETTINGS}/config.toml", instance="walls"),
    _unit("-schedule@", f"read {SETTINGS}/config.toml", instance="walls"),
)


def asked(*, scratch: str, process: int, devices: tuple[str, ...]) -> Mapping[str, Any]:
    """What the probe is to try. ``devices`` are nodes that nobody here may open."""
    secrets = [
        f"{SETTINGS}/{name}"
        for name in ("smtp-password", "immich-api-key", "database-password", "ping-url", "push-urls")
    ]
    return {
        "write": [
            *(f"{MEDIA}/upload", f"{MEDIA}/walls", OPENED, BESIDE, "/home", "/root", "/etc", "/usr", OTHER_DISK),
            *(STATE, f"{STATE}/outbox", DUMPS),
        ],
        "read": [
            *(
                f"{OPENED}/it",
                f"{BESIDE}/it",
                "/root/walls/it",
                f"{MEDIA}/walls/it",
                "/etc/shadow",
                f"{SETTINGS}/config.toml",
            ),
            *secrets,
        ],
        "list": [MEDIA, OPENED, BESIDE, "/root", NOTIFIER_STATE],
        "open": list(devices),
        "connect": [BUS, MAIL],
        "setuid": f"{PLACE}/setuid-id",
        "process": process,
        "scratch": scratch,
    }


def command(asked: Mapping[str, Any]) -> str:
    """The probe's command line, for a shell."""
    return shlex.join(["/usr/bin/python3", "-I", f"{PLACE}/probe.py", json.dumps(asked)])


def drop_in(walled: Walled) -> str:
    """The unit as it is, with the probe in the place of its program. The manager opens the file for what it says."""
    lines = [
        "Type=oneshot",
        "RemainAfterExit=no",
        "Restart=no",
        "RestartForceExitStatus=",
        "WatchdogSec=0",
        "ExecReload=",
        "ExecStart=",
    ]
    lines += [f"ExecStart=/bin/sh {PLACE}/{walled.unit}.sh", f"StandardOutput=truncate:{PLACE}/{walled.unit}.json"]
    return "\n".join(["[Service]", *lines, ""])


def broke(said: Mapping[str, str]) -> frozenset[str]:
    """The tries that succeeded."""
    return frozenset(name for name, held in said.items() if not held)
