"""Schedules: what is understood, when it comes next, and the timers that systemd is given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup import config
from immich_usb_backup.cli import check_config
from immich_usb_backup.errors import ConfigError
from immich_usb_backup.policy.schedule import escaped, next_run, normalised, shown, timer_name, timer_text

DAEMON = Path(__file__).resolve().parents[2] / "daemon"
SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone that changes its clocks; the machine's own comes back."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "calendar"),
    [
        ("", ""),
        ("  ", ""),
        ("daily 03:00", "*-*-* 03:00:00"),
        ("Daily  3:00", "*-*-* 03:00:00"),
        ("weekly Sun 03:30", "Sun *-*-* 03:30:00"),
        ("weekly sunday 23:59", "Sun *-*-* 23:59:00"),
        ("Sun 03:00", "Sun *-*-* 03:00:00"),
        ("03:00", "*-*-* 03:00:00"),
        ("*-*-* 03:00:00", "*-*-* 03:00:00"),
        ("daily", "daily"),
        ("Mon..Fri 03:00", "Mon..Fri 03:00"),
        ("*-*-01 04:00 Europe/Berlin", "*-*-01 04:00 Europe/Berlin"),
    ],
)
def test_handy_forms_become_systemds(text: str, calendar: str) -> None:
    assert normalised(text) == calendar
    assert normalised(calendar) == calendar


@pytest.mark.parametrize(
    "text",
    ["daily", "weekly", "daily 24:00", "daily at three", "weekly 03:00", "weekly Sunk 03:00", "daily 03:60"],
)
def test_what_begins_like_a_handy_form_must_be_one(text: str) -> None:
    if text in {"daily", "weekly"}:
        assert normalised(text) == text
    else:
        with pytest.raises(ValueError, match="daily 03:00"):
            normalised(text)


@pytest.mark.parametrize("text", ["03:00\nExecStart=/bin/evil", "%H:00", "$(date)", "x" * 300, "03:00\tx", "\u0660"])
def test_nothing_else_gets_into_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        normalised(text)
    with pytest.raises(ConfigError, match=r"disk.Blue.schedule"):
        config.parse(f"[disk.Blue]\nschedule = {text!r}\n".replace("'", '"').encode(), origin="x")


@pytest.mark.parametrize(
    ("text", "now", "following"),
    [
        ("daily 03:00", "2026-11-21T01:59:00", "2026-11-21T02:00:00"),
        ("daily 03:00", "2026-11-21T02:00:00", "2026-11-22T02:00:00"),
        ("weekly Sun 03:00", "2026-11-21T12:00:00", "2026-11-22T02:00:00"),
        ("weekly Sat 03:00", "2026-11-21T12:00:00", "2026-11-28T02:00:00"),
        ("daily 03:00", "2026-03-28T12:00:00", "2026-03-29T01:00:00"),  # the clocks went forward in that night
        ("daily 03:00", "2026-10-24T12:00:00", "2026-10-25T02:00:00"),  # and back in this one
    ],
)
def test_the_next_time_is_by_the_clock_on_the_wall(text: str, now: str, following: str) -> None:
    found = next_run(text, datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(following).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "hourly", "Mon..Fri 03:00", "*-*-01 04:00", "03:00 UTC"])
def test_what_only_systemd_can_tell_is_not_guessed(text: str) -> None:
    assert next_run(text, datetime(2026, 11, 21, tzinfo=UTC)) is None


@given(
    st.datetimes(datetime.fromisoformat("2024-01-01"), datetime.fromisoformat("2030-01-01"), timezones=st.just(UTC)),
    st.sampled_from(["daily", "weekly Mon", "weekly Sun"]),
    st.integers(0, 23),
    st.integers(0, 59),
)
def test_the_next_time_comes_and_is_that_time(now: datetime, form: str, hour: int, minute: int) -> None:
    schedule = f"{form} {hour:02}:{minute:02}"
    found = next_run(schedule, now)
    assert found is not None
    longest = timedelta(days=7 if "weekly" in form else 1, hours=1)
    assert now < found <= now + longest
    assert found.astimezone().minute == minute
    assert shown(normalised(schedule)) == schedule


@needs_systemd
def test_systemd_agrees_with_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both in one zone that systemd knows on each machine."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    now = datetime.now(UTC)
    for text in ("daily 03:00", "weekly Sun 03:30", "weekly Wed 23:59"):
        command = ["systemd-analyze", "calendar", normalised(text)]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        (line,) = (line for line in said.stdout.splitlines() if "Next elapse" in line)
        found = next_run(text, now)
        assert found is not None
        assert f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S}" in line


# Configuration ----------------------------------------------------------------------------------------------


def test_a_disks_own_days_and_schedule_come_before_the_others() -> None:
    text = b'[freshness]\ndue_days = 20\n[disk.Blue]\ndue_days = 5\n[disk."1234-ABCD"]\nschedule = "daily 03:00"\n'
    found = config.parse(text, origin="x")
    assert found.due_days_of("Blue", "LABEL", "1234-ABCD") == 5
    assert found.due_days_of("Green", "LABEL", "1234-ABCD") == 20
    assert found.schedule_of("Blue", "LABEL", "1234-ABCD") == "*-*-* 03:00:00"
    assert found.schedule_of("Blue") == ""


@needs_systemd
def test_check_config_says_when_a_schedule_comes_next_and_which_systemd_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[disk.Blue]\nschedule = "daily 03:00"\n[disk.Green]\nschedule = "every now and then"\n')
    lines = [line for line in check_config._look(config.load(path)) if "schedule" in line[1]]
    (good,) = (text for fine, text in lines if fine)
    (bad,) = (text for fine, text in lines if not fine)
    assert good.startswith("disk.Blue.schedule: daily 03:00: next ")
    assert bad.startswith("disk.Green.schedule: every now and then: systemd does not understand it")


# Timers -----------------------------------------------------------------------------------------------------

NAMES = ("Blue", "My disk", "a/b", "-x", ".hidden", "über", "100%", "$HOME", "back\\slash", "x@y", "'\"", "--help")


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_names_are_escaped_as_systemd_does_it(name: str) -> None:
    escape = ["systemd-escape", "--", name]
    assert escaped(name) == subprocess.run(escape, capture_output=True, text=True, check=True).stdout.rstrip("\n")


@given(st.text(min_size=1).filter(str.isprintable))
def test_an_escaped_name_is_in_the_alphabet_of_units(name: str) -> None:
    found = escaped(name)
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.\\-")
    assert not found.startswith(".")
    made = timer_name(name)
    assert made is None or "/" not in made


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "é" * 100])
def test_what_no_unit_can_be_called_has_no_timer(name: str) -> None:
    assert timer_name(name) is None


def make(folder: Path, text: str | bytes) -> subprocess.CompletedProcess[str]:
    """Run it as the generator does."""
    path = folder / "config.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    command = [
        sys.executable,
        "-m",
        "immich_usb_backup",
        "make-units",
        f"--config={path}",
        "--",
        str(folder / "units"),
    ]
    (folder / "units").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(DAEMON)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


@needs_systemd
def test_systemd_takes_the_timers(tmp_path: Path) -> None:
    tables = "".join(f'[disk.{json.dumps(name)}]\nschedule = "daily 03:00"\n' for name in NAMES)
    done = make(tmp_path, tables)
    assert (done.returncode, done.stderr) == (0, "")
    units = tmp_path / "units"
    made = sorted(path.name for path in units.glob("*.timer"))
    assert made == sorted(f"immich-usb-backup-schedule@{escaped(name)}.timer" for name in NAMES)
    wanted = units / "timers.target.wants"
    assert all((wanted / name).resolve() == units / name for name in made)
    service = (SYSTEMD / "immich-usb-backup-schedule@.service").read_text()
    (units / "immich-usb-backup-schedule@.service").write_text(
        service.replace("/usr/local/bin/immich-usb-backup", "/bin/true")
    )
    verify = ["systemd-analyze", "verify", "--recursive-errors=no", *(str(units / name) for name in made)]
    checked = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_timer_catches_up() -> None:
    lines = timer_text("weekly Sun 03:00").splitlines()
    assert {"OnCalendar=Sun *-*-* 03:00:00", "Persistent=true"} <= set(lines)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"disk = 3", b"[disk]\nBlue = 3", b"[disk.Blue]\nschedule = 3", b"[disk.Blue]\nschedule = ''"),
        *(b"not toml [", b"\xff\xfe", b"a = " + b"[" * 5000, b"x = " + b"9" * 5000),
    ],
)
def test_a_broken_configuration_makes_no_timer_and_no_fuss(tmp_path: Path, text: bytes) -> None:
    done = make(tmp_path, text)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert [*(tmp_path / "units").iterdir()] == []


def test_one_bad_schedule_does_not_cost_the_others_theirs(tmp_path: Path) -> None:
    done = make(
        tmp_path,
        '[disk.Bad]\nschedule = "%H\\n"\n[disk.Blue]\nschedule = "daily 03:00"\n["disk"."a\\u0000b"]\nschedule = "daily 03:00"\n',
    )
    assert done.returncode == 1
    assert "no timer for the disk 'Bad'" in done.stderr
    assert "no timer for the disk 'a\\u0000b'" in done.stderr
    assert [path.name for path in (tmp_path / "units").glob("*.timer")] == ["immich-usb-backup-schedule@Blue.timer"]


def test_the_generator_loads_little() -> None:
    """It runs at each boot before anything else does."""
    program = (
        "import sys; from immich_usb_backup.__main__ import main; main(['make-units', '--config=/nonexistent', '/x'])"
    )
    check = (
        f"{program}; print([name for name in ('pydantic', 'asyncio', 'dbus_next', 'structlog') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(DAEMON)}
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_the_generator_never_fails(tmp_path: Path) -> None:
    """Nothing is installed where it looks, on this machine."""
    script = (SYSTEMD / "immich-usb-backup-generator").read_text()
    broken = tmp_path / "program"
    broken.write_text("#!/bin/sh\nexit 70\n")
    broken.chmod(0o755)
    script = script.replace("/usr/local/bin/immich-usb-backup", str(broken)).replace(
        "/etc/immich-usb-backup/config.toml", str(broken)
    )
    for text in (script, script.replace(str(broken), str(tmp_path / "nothing"))):
        assert subprocess.run(["sh", "-c", text, "x", str(tmp_path)], check=False).returncode == 0
