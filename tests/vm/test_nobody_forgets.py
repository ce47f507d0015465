"""Nobody forgets, on a real systemd: the reminder's timer and the schedule's, over days that pass by setting the clock."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.vm.backup import DAEMON, STATE, Backup, marked_image

REMIND = "immich-usb-backup-remind"
SCHEDULE = "immich-usb-backup-schedule@Blue"
BLUE = '[disk.Blue]\nschedule = "daily 03:00"'
AT_ONCE = f"/run/systemd/system/{REMIND}.timer.d"
STAMPS = "/var/lib/systemd/timers/stamp-immich-usb-backup-*"
TIMERS = "systemctl daemon-reload && systemctl start timers.target"


@pytest_asyncio.fixture(loop_scope="session")
async def dated(server: Backup) -> AsyncIterator[Backup]:
    """A server whose clock may be set; afterwards it is right again, and no timer remembers the future."""
    # A timer whose time has come while the clock was set starts up to its random delay later: a quarter of an hour.
    await server.guest.write(f"{AT_ONCE}/at-once.conf", "[Timer]\nRandomizedDelaySec=0\nAccuracySec=1s\n")
    await server.guest.sh(f"systemctl stop {REMIND}.timer; rm -f {STAMPS} {STATE}/reminders.json")
    await server.guest.sh(f"systemctl daemon-reload; systemctl start {REMIND}.timer")
    yield server
    await server.guest.sh(f"rm -r {AT_ONCE}")
    await server.guest.sh(
        f"systemctl stop {REMIND}.timer '{SCHEDULE}.timer'; date -s @{int(time.time())}; rm -f {STAMPS}"
    )
    await server.start_over(mail=False)
    await server.guest.sh(f"{TIMERS}; systemctl start {REMIND}.timer")


async def _set_clock(backup: Backup, when: str) -> None:
    """``when`` as ``date -d`` takes it, relative to the guest's day."""
    await backup.guest.sh(f'date -s "$(date -d "{when}" "+%F %T")"')


async def test_a_disk_that_stays_away_is_reminded_of_by_the_timer(dated: Backup, tmp_path: Path) -> None:
    await dated.start_over()
    assert (await dated.plug_in(marked_image(tmp_path / "blue.img"))).outcome == "ok"
    await _set_clock(dated, "11:00 today + 31 days")
    said = await dated.event("reminded")
    assert re.search(r"'Blue' is 3[01] days old", str(said["MESSAGE"])), said["MESSAGE"]
    assert "does not run" not in str(said["MESSAGE"])
    await dated.guest.until(f"! systemctl is-active --quiet {REMIND}.service")
    assert (await dated.guest.sh(f"systemctl show -p Result --value {REMIND}.service")).stdout.strip() == "success"
    await dated.guest.until("grep -q 'is 3[01] days old' /root/mails/box/new/*")


async def test_a_dead_service_keeps_nobody_from_being_reminded(dated: Backup, tmp_path: Path) -> None:
    await dated.start_over()
    assert (await dated.plug_in(marked_image(tmp_path / "blue.img"))).outcome == "ok"
    await dated.guest.sh(f"systemctl mask --runtime --now {DAEMON}")
    try:
        await _set_clock(dated, "11:00 today + 40 days")
        said = await dated.event("reminded")
        assert "The backup service does not run" in str(said["MESSAGE"])
        owner = await dated.guest.sh(f"stat -c %U {STATE}/reminders.json")
        assert owner.stdout.strip() == "immich-usb-backup"
    finally:
        await dated.guest.sh(f"systemctl unmask --runtime {DAEMON}; systemctl start {DAEMON}")


async def test_a_schedule_backs_up_a_disk_that_stays_plugged_in_and_catches_up(dated: Backup, tmp_path: Path) -> None:
    await dated.start_over(BLUE)
    await dated.guest.sh(TIMERS)
    await dated.guest.plug("blue", marked_image(tmp_path / "blue.img"))  # and there it stays
    assert await dated.outcome() == "ok"
    await _set_clock(dated, "02:59:50 tomorrow")
    assert await dated.outcome() == "ok"
    await dated.guest.until(f"! systemctl is-active --quiet {SCHEDULE}.service")

    await dated.guest.sh(f"systemctl stop {SCHEDULE}.timer")  # as when the machine is off at three
    await _set_clock(dated, "12:00 tomorrow")
    await dated.from_now_on()
    await dated.guest.sh(f"systemctl start {SCHEDULE}.timer")
    assert await dated.outcome() == "partial"  # the dump is older than 48 hours by then


async def test_a_disk_that_is_away_is_no_failure_of_its_schedule(dated: Backup) -> None:
    await dated.start_over(BLUE)
    await dated.guest.sh(TIMERS)
    await dated.guest.sh(f"systemctl start {SCHEDULE}.service")
    said = (await dated.guest.sh(f"journalctl -o cat -u {SCHEDULE}.service")).stdout
    assert "No scheduled backup now: No disk 'Blue' is plugged in" in said


async def test_a_schedule_that_is_taken_back_has_no_timer_any_more(dated: Backup) -> None:
    await dated.start_over(BLUE)
    await dated.guest.sh(TIMERS)
    await dated.guest.sh(f"systemctl is-active {SCHEDULE}.timer")
    await dated.start_over()
    await dated.guest.sh(f"systemctl daemon-reload; systemctl stop {SCHEDULE}.timer")
    made = await dated.guest.sh("ls /run/systemd/generator/ | grep -c immich-usb-backup-schedule || true")
    assert made.stdout.strip() == "0"
    await dated.guest.write("/etc/immich-usb-backup/config.toml", "not [ toml")
    await dated.guest.sh("systemctl daemon-reload")
