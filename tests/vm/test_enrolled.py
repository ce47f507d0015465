"""Enrolled sticks and strangers' on the kernel's own exFAT, by the service within its walls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from immich_usb_backup.policy.marker import ENROLLED_MARKER, decode
from tests.vm.backup import COMMAND, DAEMON, MARKER, PACKAGE, STATE, Backup
from tests.vm.image import exfat_image, image_hash, mounted_exfat

LOOKED = ("disk-not-trusted", "disk-unmarked", "run-ok", "run-partial", "run-failed")
CONFIG = "/etc/immich-usb-backup/config.toml"


@pytest_asyncio.fixture(loop_scope="session")
async def strict(backup: Backup) -> AsyncIterator[Backup]:
    """The service, which backs up to enrolled disks only, and knows none."""
    await backup.start_over(grace_seconds=0, mail=False)
    backup.spoil()
    await backup.guest.sh(f"sed -i 's/^\\[disks\\]$/[disks]\\ntrust = \"enrolled\"/' {CONFIG}")
    await backup.guest.sh(f"systemctl reload {DAEMON}")
    await backup.from_now_on()
    yield backup
    await backup.guest.sh(f"rm -f {STATE}/enrolments.json")


async def _plugged(backup: Backup, image: Path) -> str:
    """Plug the stick in; what the service made of it."""
    await backup.guest.plug("blue", image)
    return str((await backup.event(*LOOKED))["IMMICH_BACKUP_EVENT"])


async def test_a_stick_is_enrolled_backed_up_and_forgotten_and_the_list_is_closed(
    strict: Backup, tmp_path: Path
) -> None:
    image = exfat_image(tmp_path / "blue.img", populate={"mine.txt": b"mine"})
    assert await _plugged(strict, image) == "disk-unmarked"
    device = f"{await strict.guest.device('blue')}1"
    refused = await strict.as_nobody("enroll", device, "--name", "Blue")
    assert refused.returncode != 0, refused.stdout
    said = await strict.guest.sh(f"{COMMAND} enroll {device} --name Blue")
    assert "safe to unplug" in said.stdout
    assert not await strict.is_mounted(device)
    assert (await strict.guest.sh(f"stat -c '%a %U' {STATE}/enrolments.json")).stdout == "600 immich-usb-backup\n"
    await strict.guest.pull("blue")
    with mounted_exfat(image) as root:
        assert {path.name for path in root.iterdir()} == {"mine.txt", ENROLLED_MARKER}
        secret = decode((root / ENROLLED_MARKER).read_bytes()).secret
    assert secret
    leaked = await strict.guest.sh(f"grep -rl {secret} {STATE}; journalctl -q --all | grep {secret}", check=False)
    assert leaked.stdout == ""
    assert await _plugged(strict, image) == "run-ok", await strict.story()
    await strict.guest.pull("blue")
    assert await strict.differences(image) == []
    await strict.guest.sh(f"{COMMAND} forget Blue")
    before = image_hash(image)
    assert await _plugged(strict, image) == "disk-not-trusted"
    await strict.guest.pull("blue")
    assert image_hash(image) == before


async def test_a_strangers_stick_is_bit_for_bit_what_it_was(strict: Backup, tmp_path: Path) -> None:
    image = exfat_image(tmp_path / "blue.img", populate=MARKER)
    before = image_hash(image)
    assert await _plugged(strict, image) == "disk-not-trusted"
    await strict.guest.pull("blue")
    assert image_hash(image) == before


async def test_a_service_that_dies_before_the_rename_leaves_no_marker_and_tidies_up(
    strict: Backup, tmp_path: Path
) -> None:
    image = exfat_image(tmp_path / "blue.img", populate={"mine.txt": b"mine"})
    assert await _plugged(strict, image) == "disk-unmarked"
    device = f"{await strict.guest.device('blue')}1"
    file = f"{PACKAGE}/adapters/disk_marker.py"
    await strict.guest.sh(
        f"cp {file} /root/disk_marker.py; sed -i 's/^        os.rename(/        os._exit(9)  # /' {file}"
    )
    try:
        await strict.guest.sh(f"systemctl restart {DAEMON}")
        died = await strict.guest.sh(f"{COMMAND} enroll {device} --name Blue", check=False)
        assert died.returncode != 0
    finally:
        await strict.guest.sh(f"cp /root/disk_marker.py {file}")
    await strict.guest.sh(f"systemctl restart {DAEMON}")
    await strict.event("enrolment-cut-off")
    assert not await strict.is_mounted(device)
    await strict.guest.pull("blue")
    with mounted_exfat(image) as root:
        assert {path.name for path in root.iterdir()} == {"mine.txt"}
