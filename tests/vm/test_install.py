"""Installing, upgrading and taking it off again, in a guest of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.vm.guest import Guest
from tests.vm.image import guest_image
from tests.vm.installing import Installed, install

OURS = "find / -xdev \\( -path /proc -o -path /sys -o -path /root \\) -prune -o -iname '*immich*usb*backup*' -print"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fresh() -> AsyncIterator[Guest]:
    """A guest that nobody has installed anything in."""
    async with Guest(guest_image()) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(fresh: Guest, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The project installed there."""
    return await install(fresh, tmp_path_factory.mktemp("install"))


async def test_install_run_upgrade_and_purge_leave_nothing(fresh: Guest, place: Installed, tmp_path: Path) -> None:
    script = f"cd {place.checkout} && ./scripts/install"
    await fresh.sh(
        "mkdir -p /var/lib/immich/upload /var/lib/immich/library /var/lib/immich/profile /var/lib/immich/backups"
    )
    await fresh.write("/etc/immich-usb-backup/config.toml", 'media_location = "/var/lib/immich"\n', mode="0644")
    await fresh.sh("systemctl enable --now immich-usb-backup.service && systemctl is-active immich-usb-backup.service")
    before = (await fresh.sh("systemctl show -p MainPID --value immich-usb-backup.service")).stdout
    looked = await fresh.sh(f"{script} --uninstall --dry-run")
    assert "Removing" in looked.stdout
    await fresh.sh("systemctl is-active immich-usb-backup.service")
    await fresh.sh(f"{script} --wheels {place.wheels}", timeout=600)
    await fresh.sh("systemctl restart immich-usb-backup.service && systemctl is-active immich-usb-backup.service")
    assert (await fresh.sh("systemctl show -p MainPID --value immich-usb-backup.service")).stdout != before
    await fresh.sh(f"{script} --uninstall --purge")
    assert (await fresh.sh(OURS)).stdout == ""
    users = "immich-usb-backup immich-usb-backup-notify immich-usb-backup-dump"
    assert (await fresh.sh(f"getent passwd {users}", check=False)).stdout == ""
