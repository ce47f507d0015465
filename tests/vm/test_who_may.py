"""Who may do what, with the real polkit: a member of the group, somebody else, and the daemon's own user."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.vm.backup import OUTCOMES, Backup, marked_image
from tests.vm.guest import Completed

GROUP = "immich-usb-backup-admins"
NAME = "io.github.immich_usb_backup1"
MANAGER = f"{NAME} /io/github/immich_usb_backup1 {NAME}.Manager"
NEEDS_LEAVE = {
    "Plan": 'ss Blue ""',
    "GetReport": "s none",
    "GetCurrentFile": "",
    "Backup": 'ss Blue ""',
    "Verify": 'ss Blue ""',
    "Cancel": "s Blue",
    "Eject": "s Blue",
    "Retry": "s none",
    "Remind": "",
    "Approve": "s Blue",
    "Adopt": "s Blue",
    "Forget": "s Blue",
    "Enroll": 'ss /dev/none ""',
}


async def _call(backup: Backup, user: str, member: str, words: str = "", *, interactive: bool = False) -> Completed:
    flag = f"--allow-interactive-authorization={'yes' if interactive else 'no'}"
    command = f"busctl --timeout=60 {flag} call {MANAGER} {member} {words}"
    return await backup.guest.sh(f"runuser -u {user} -- {command}", check=False)


@pytest_asyncio.fixture(loop_scope="session")
async def users(backup: Backup) -> AsyncIterator[Backup]:
    """``bob`` is in the group, ``alice`` is not."""
    await backup.guest.sh(f"useradd alice; useradd --groups {GROUP} bob")
    yield backup
    await backup.guest.sh("userdel --remove alice 2>/dev/null; userdel --remove bob 2>/dev/null; true")


async def test_the_group_and_the_actions_are_there(users: Backup) -> None:
    await users.guest.sh(f"getent group {GROUP}")
    listed = (await users.guest.sh(f"pkaction | grep {NAME}")).stdout.split()
    assert sorted(listed) == [f"{NAME}.{what}" for what in ("decide", "inspect", "operate")]


async def test_everybody_may_look(users: Backup) -> None:
    for member, words in (("GetState", ""), ("GetDisks", ""), ("GetHistory", 'sub "" 5 false')):
        done = await _call(users, "alice", member, words)
        assert done.returncode == 0, (member, done)
    tree = await users.guest.sh(f"runuser -u alice -- busctl tree --list {NAME}")
    assert "/io/github/immich_usb_backup1" in tree.stdout


@pytest.mark.parametrize("interactive", [False, True])
async def test_who_is_not_in_the_group_may_do_nothing_and_is_told_what_to_do(
    users: Backup, *, interactive: bool
) -> None:
    for member, words in NEEDS_LEAVE.items():
        done = await _call(users, "alice", member, words, interactive=interactive)
        assert (done.returncode, done.stdout) == (1, ""), (member, done)
        assert f"members of the group {GROUP}" in done.stderr, (member, done)
        assert f"sudo usermod --append --groups {GROUP}" in done.stderr, (member, done)


async def test_a_member_of_the_group_may_do_everything_without_a_password(users: Backup, tmp_path: Path) -> None:
    await users.guest.plug("blue", marked_image(tmp_path / "blue.img"))
    assert await users.outcome() == "ok", await users.story()
    for member, words in (("Remind", ""), ("GetCurrentFile", ""), ("Plan", 'ss Blue ""'), ("Approve", "s Blue")):
        done = await _call(users, "bob", member, words)
        assert done.returncode == 0, (member, done)
    await users.from_now_on()
    done = await _call(users, "bob", "Backup", 'ss Blue ""')
    assert (done.returncode, done.stdout.strip()) == (0, 's "Blue"'), done
    assert await users.outcome() == "ok", await users.story()
    assert (await users.report())["trigger"] == "asked"
    done = await _call(users, "bob", "Forget", "s Blue")
    assert done.returncode == 0, done


async def test_a_member_of_the_group_cancels_a_backup_and_the_next_one_completes_it(
    users: Backup, tmp_path: Path
) -> None:
    await users.make_it_slow()
    image = marked_image(tmp_path / "blue.img")
    await users.from_now_on()
    await users.guest.plug("blue", image)
    await users.event("plan-made")
    refused = await _call(users, "alice", "Cancel", 's ""')
    assert refused.returncode == 1, refused
    done = await _call(users, "bob", "Cancel", 's ""')
    assert (done.returncode, done.stdout.strip()) == (0, 's "Blue"'), done
    ended = await users.event(*OUTCOMES)
    assert ended["IMMICH_BACKUP_OUTCOME"] == "interrupted", await users.story()
    assert "cancelled by somebody on the server" in ended["MESSAGE"]
    assert not await users.is_mounted(await users.guest.device("blue"))
    again = await _call(users, "bob", "Retry", f"s {shlex.quote(str(ended['IMMICH_BACKUP_RUN']))}")
    assert again.returncode == 0, again
    assert await users.outcome() == "ok", await users.story()
    await users.guest.pull("blue")
    assert await users.differences(image) == []


async def test_the_daemons_own_user_may_begin_what_is_scheduled_and_nothing_else(users: Backup, tmp_path: Path) -> None:
    await users.guest.plug("blue", marked_image(tmp_path / "blue.img"))
    assert await users.outcome() == "ok", await users.story()
    await users.from_now_on()
    assert (await _call(users, "immich-usb-backup", "Forget", "s Blue")).returncode == 1
    assert (await _call(users, "immich-usb-backup", "Backup", 'ss Blue ""')).returncode == 0
    assert await users.outcome() == "ok", await users.story()
    assert (await users.report())["trigger"] == "schedule"


async def test_without_polkit_root_may_and_others_may_not(users: Backup) -> None:
    await users.guest.sh("systemctl mask --runtime polkit 2>&1; systemctl stop polkit")
    try:
        refused = await _call(users, "bob", "Remind")
        assert (refused.returncode, "polkit" in refused.stderr) == (1, True), refused
        allowed = await users.guest.sh(f"busctl call {MANAGER} Remind", check=False)
        assert allowed.returncode == 0, allowed
    finally:
        await users.guest.sh("systemctl unmask --runtime polkit; systemctl start polkit")
