"""Each unit's own walls on a real systemd and kernel: a probe in the place of its program tries to break out, and a child of
the probe's, as rsync is one of the service's. What must work within the walls is tried, too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.walls import (
    MEDIA,
    OPENED,
    PHOTOS,
    PLACE,
    PREPARE,
    PROBE,
    SETTINGS,
    STATE,
    UNDO,
    UNITS,
    Walled,
    asked,
    broke,
    command,
    drop_in,
)
from tests.vm.backup import DAEMON, Backup, marked_image
from tests.vm.guest import Guest
from tests.vm.image import mounted_exfat

DEVICES = ("/dev/vda", "/dev/mem", "/dev/kmsg")
QUIET = "immich-usb-backup-notifier.path immich-usb-backup-remind.timer"
GENERATED = "/run/systemd/generator/immich-usb-backup.service.d/10-configured-paths.conf"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def walls(server: Backup) -> AsyncIterator[Guest]:
    """The service does not run; what the probe tries to reach is there, and one folder below /home is configured."""
    guest = server.guest
    await guest.sh(f"systemctl stop {DAEMON} {QUIET}")
    config = f'media_location = "{MEDIA}"\nconfig_files = ["{OPENED}"]\n[extra]\nphotos = "{PHOTOS}"\n'
    await guest.write(f"{SETTINGS}/config.toml", config)
    await guest.sh(f"systemctl daemon-reload\n{PREPARE}")
    await guest.put(PROBE, f"{PLACE}/probe.py")
    yield guest
    await guest.sh(UNDO, check=False)
    await server.start_over(mail=False)
    await guest.sh(f"systemctl daemon-reload; systemctl start {QUIET}")


async def _question(guest: Guest, scratch: str) -> Mapping[str, Any]:
    shown = await guest.sh("systemctl show -p MainPID --value walls-other.service")
    return asked(scratch=scratch, process=int(shown.stdout), devices=DEVICES)


async def _within(guest: Guest, walled: Walled) -> dict[str, Any]:
    folder = f"/run/systemd/system/{walled.unit}.d"
    await guest.write(f"{folder}/zz-walls.conf", drop_in(walled))
    await guest.write(f"{PLACE}/{walled.unit}.sh", f"exec {command(await _question(guest, walled.scratch))}\n")
    try:
        await guest.sh(
            f"systemctl daemon-reload; systemctl stop {walled.start} {QUIET}; systemctl start {walled.start}"
        )
        found: dict[str, Any] = json.loads((await guest.sh(f"cat {PLACE}/{walled.unit}.json")).stdout)
    finally:
        await guest.sh(f"systemctl stop {walled.start}; rm -r {folder}; systemctl daemon-reload", check=False)
    return found


async def test_each_try_succeeds_where_there_are_no_walls(walls: Guest) -> None:
    """Else that it fails would show nothing."""
    found = json.loads((await walls.sh(command(await _question(walls, STATE)))).stdout)
    held = {name: why for name, why in found["itself"].items() if why}
    assert held == {}
    assert broke(found["child"]) == broke(found["itself"])


@pytest.mark.parametrize("walled", UNITS, ids=lambda walled: walled.unit)
async def test_a_unit_may_do_this_and_nothing_else(walls: Guest, walled: Walled) -> None:
    found = await _within(walls, walled)
    assert broke(found["itself"]) == walled.may, found
    assert broke(found["child"]) == walled.may, found


async def test_what_is_mounted_later_in_an_opened_folder_is_seen(backup: Backup) -> None:
    """As a network mount below /home that comes after the service has started."""
    guest = backup.guest
    await guest.sh(f"mkdir -p {OPENED}/late")
    try:
        await backup.start_over(f'[extra]\nopened = "{OPENED}"\n', mail=False)
        await guest.sh(f"systemctl daemon-reload; grep -q {OPENED} {GENERATED}; systemctl restart {DAEMON}")
        await guest.sh(f"mount -t tmpfs tmpfs {OPENED}/late; echo x > {OPENED}/late/it")
        inside = f"nsenter --mount --target $(systemctl show -p MainPID --value {DAEMON})"
        assert (await guest.sh(f"{inside} cat {OPENED}/late/it")).stdout.strip() == "x"
    finally:
        await guest.sh(f"umount {OPENED}/late; rm -rf /home/walls", check=False)
        await backup.start_over(mail=False)
        await guest.sh("systemctl daemon-reload")


CANARY = "canary-3b9f2c"
NAMES = ("smtp-password", "ping-url", "push-urls", "immich-api-key", "database-password")
TELLING = """
[database]
mode = "immich-api"
api_url = "http://127.0.0.1:9"
[ping]
[push]
[mail]
host = "127.0.0.1"
port = 2525
security = "none"
username = "me"
to = ["me@example.org"]
"""
NOTIFIER = "immich-usb-backup-notifier.service"
SNOOP = "while :; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; sleep 0.3; done > /root/snooped"
SHOWING = ("status --json", "disks --json", "history --json", "show --json", "doctor --json", "check-config")


async def test_no_secret_gets_out_of_a_backup(backup: Backup, tmp_path: Path) -> None:
    """Not into the journal, the state, the outbox, the processes, what commands show, or the disk; each channel fails."""
    guest = backup.guest
    for name in NAMES:
        await guest.write(f"{SETTINGS}/{name}", f"http://127.0.0.1:9/{CANARY}-{name}\n", mode="0600")
    image = marked_image(tmp_path / "blue.img")
    try:
        await backup.start_over(mail=False)
        config = (await guest.sh(f"cat {SETTINGS}/config.toml")).stdout
        await guest.write(f"{SETTINGS}/config.toml", config + TELLING)
        await guest.write("/root/snoop.sh", SNOOP)
        await guest.sh(
            f"systemctl stop {NOTIFIER}; systemd-run --quiet --unit=snoop bash /root/snoop.sh; systemctl restart {DAEMON}"
        )
        await backup.from_now_on()
        ended = await backup.plug_in(image)
        assert ended.texts("fresh-dump-failed"), ended.story
        failed = "IMMICH_BACKUP_EVENT=delivery-failed IMMICH_BACKUP_EVENT=delivery-given-up"
        await guest.until(f"journalctl -q -u {NOTIFIER} {failed} | grep -q 'by mail'")
        await guest.sh("systemctl stop snoop; journalctl --sync; test -s /root/snooped")
        shown = [f"immich-usb-backup {arguments}" for arguments in SHOWING]
        for where in ("journalctl -q -a -o json --no-pager", "cat /root/snooped", *shown):
            assert (await guest.sh(f"{where} 2>&1 | grep -ac {CANARY}", check=False)).stdout.strip() == "0", where
        found = await guest.sh(f"grep -rla {CANARY} {STATE}* /run/immich* /root/mails", check=False)
        assert found.stdout == ""
    finally:
        files = " ".join(f"{SETTINGS}/{name}" for name in NAMES)
        await guest.sh(f"systemctl stop snoop; rm -f {files} /root/snooped /root/snoop.sh", check=False)
        await backup.start_over(mail=False)
        await guest.sh(f"systemctl stop {NOTIFIER}; rm -f {STATE}/outbox/*.json")
    with mounted_exfat(image) as root:
        assert not [path for path in root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
