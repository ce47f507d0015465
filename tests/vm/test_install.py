"""Installing, upgrading and taking it off again, in a guest of its own. It is installed already, as all of them are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.vm.guest import Guest
from tests.vm.installing import CONFIG_FIRST, Installed, documented, installed_image

OURS = "find / -xdev \\( -path /proc -o -path /sys -o -path /root \\) -prune -o -iname '*immich*usb*backup*' -print"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fresh() -> AsyncIterator[Guest]:
    """A guest that nobody has done anything in since it was installed."""
    async with Guest(await asyncio.to_thread(installed_image)) as running:
        yield running


async def test_install_run_upgrade_and_purge_leave_nothing(fresh: Guest) -> None:
    place = Installed()
    script = f"cd {place.checkout} && ./scripts/install"
    await fresh.sh(
        "mkdir -p /var/lib/immich/upload /var/lib/immich/library /var/lib/immich/profile /var/lib/immich/backups"
    )
    await fresh.sh(f"cd {place.checkout} && {documented(*CONFIG_FIRST)}")
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
