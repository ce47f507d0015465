"""The commands in a real set-up: over the end of a service that is killed, and by a user who may only look."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.vm.backup import COMMAND, DAEMON, Backup, marked_image
from tests.vm.guest import Completed

FOLLOWER = "follower"


@pytest_asyncio.fixture(loop_scope="session")
async def alice(backup: Backup) -> AsyncIterator[Backup]:
    """A user who is in no group."""
    await backup.guest.sh("useradd alice")
    yield backup
    await backup.guest.sh("userdel --remove alice 2>/dev/null; true")


async def _as_alice(backup: Backup, *arguments: str) -> Completed:
    return await backup.guest.sh(f"runuser -u alice -- {COMMAND} {' '.join(arguments)}", check=False)


async def test_who_follows_a_backup_hears_of_its_end_though_the_service_is_killed(
    backup: Backup, tmp_path: Path
) -> None:
    await backup.make_it_slow()
    await backup.from_now_on()
    await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"))
    await backup.event("plan-made")
    await backup.guest.throttle("blue", 200_000)
    follow = f"systemd-run --quiet --wait --pipe --unit={FOLLOWER} {COMMAND} status --follow > /root/followed 2>&1"
    await backup.guest.sh(f"({follow}; echo ended $? >> /root/followed) < /dev/null > /dev/null 2>&1 &")
    await backup.guest.until("grep -q 'copying\\|plan\\|finding' /root/followed", timeout=60)
    await backup.guest.throttle("blue", 0)
    await backup.guest.sh(f"systemctl kill --signal=SIGKILL {DAEMON}; systemctl start {DAEMON}")
    await backup.guest.until("grep -q '^ended' /root/followed", timeout=120)
    said = (await backup.guest.sh("cat /root/followed")).stdout
    assert "The service has ended. Waiting until it is there again." in said
    assert "Backup to 'Blue' was interrupted" in said
    assert said.endswith("ended 1\n"), said


async def test_who_may_only_look_sees_whether_the_photos_are_safe(alice: Backup, tmp_path: Path) -> None:
    await alice.guest.plug("blue", marked_image(tmp_path / "blue.img"))
    assert await alice.outcome() == "ok", await alice.story()
    done = await _as_alice(alice, "status")
    assert (done.returncode, done.stdout.startswith("Your photos are safe: ")) == (0, True), done
    assert json.loads((await _as_alice(alice, "status", "--json")).stdout)["safe"] is True
    done = await _as_alice(alice, "show", "last")
    assert (done.returncode, "'Blue' is backed up" in done.stdout) == (0, True), done
    assert "shown to administrators" in done.stdout
    for command in (["show", "last", "--json"], ["backup", "Blue"], ["cancel"], ["forget", "Blue"]):
        done = await _as_alice(alice, *command)
        assert (done.returncode, done.stdout) == (1, ""), (command, done)
        assert "immich-usb-backup-admins" in done.stderr, (command, done)
