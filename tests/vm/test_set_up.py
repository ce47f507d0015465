"""What an administrator has for looking: `doctor`, explained lines, the tab key, manual pages, on a real system."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.vm.backup import COMMAND, DAEMON, Backup, marked_image
from tests.vm.guest import Completed

NOT_HERE = {"clock", "desktop messages", "desktop agent"}
"""The guest has no network to set its clock by, and no desktop."""


async def _doctor(backup: Backup, *options: str, user: str = "root") -> tuple[Completed, Mapping[str, Any]]:
    command = " ".join(("runuser", "-u", user, "--", COMMAND, "doctor", "--json", *options))
    done = await backup.guest.sh(command, check=False)
    return done, {one["check"]: one for one in json.loads(done.stdout)}


async def test_doctor_finds_nothing_wrong_with_a_server_that_works(backup: Backup, tmp_path: Path) -> None:
    await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"))
    assert await backup.outcome() == "ok", await backup.story()
    _, found = await _doctor(backup)
    wrong = {name: one for name, one in found.items() if one["result"] == "problem" and name not in NOT_HERE}
    assert wrong == {}
    for about in (
        "udev rule at work",
        "polkit",
        "UDisks2",
        DAEMON,
        "D-Bus name",
        "upload",
        "newest dump",
        "disk 'Blue'",
    ):
        assert found[about]["result"] == "ok", found[about]


async def test_doctor_names_a_service_that_is_down_and_a_rule_that_is_gone(backup: Backup) -> None:
    rule = "/etc/polkit-1/rules.d/50-immich-usb-backup.rules"
    await backup.guest.sh(f"systemctl stop {DAEMON}; mv {rule} /root/rule")
    try:
        done, found = await _doctor(backup)
    finally:
        await backup.guest.sh(f"mv /root/rule {rule}; systemctl start {DAEMON}")
    assert done.returncode == 1
    for about in ("polkit rule", DAEMON, "D-Bus name"):
        assert found[about]["result"] == "problem", found[about]
        assert found[about]["todo"], found[about]


async def test_doctor_says_to_an_ordinary_user_what_he_cannot_see(backup: Backup) -> None:
    await backup.guest.sh("useradd carol")
    try:
        _, found = await _doctor(backup, user="carol")
    finally:
        await backup.guest.sh("userdel --remove carol 2>/dev/null; true")
    assert found["polkit rule"]["result"] == "not-checked"
    assert found["D-Bus name"]["result"] == "ok"
    assert any(name == "disks" or name.startswith("disk '") for name in found), "the service tells everybody"


async def test_the_journal_explains_its_lines(backup: Backup) -> None:
    await backup.guest.sh(f"systemctl restart {DAEMON}")
    said = await backup.guest.sh(f"journalctl --no-pager -x -u {DAEMON} IMMICH_BACKUP_EVENT=ready -n 1")
    assert "What it means: Disks on these buses are backed up to from now on: usb" in " ".join(said.stdout.split())


async def test_completions_and_manual_pages_are_where_they_are_looked_for(backup: Backup, tmp_path: Path) -> None:
    await backup.start_over(mail=False)
    await backup.guest.plug("blue", marked_image(tmp_path / "blue.img"))
    assert await backup.outcome() == "ok", await backup.story()
    # Emulated, the service may miss the second that a shell waits for it.
    await backup.guest.until(f"runuser -u nobody -- {COMMAND} completion words eject B | grep -q '^Blue'")
    await backup.guest.sh(
        "test -s /usr/local/share/man/man1/immich-usb-backup.1\n"
        "test -s /usr/local/share/man/man5/immich-usb-backup.toml.5\n"
        "test -s /usr/local/share/zsh/site-functions/_immich-usb-backup\n"
        "test -s /etc/fish/completions/immich-usb-backup.fish\n"
        ". /usr/local/share/bash-completion/completions/immich-usb-backup && complete -p immich-usb-backup"
    )
