"""The commands that are clients of the service, on a real bus: what they ask, what they show, how they end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from immich_usb_backup import dbus_names
from immich_usb_backup.__main__ import main
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.cli import following
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import PlugIn
from immich_usb_backup.policy.views import Going, RunView
from tests.support import host, told
from tests.support.daemon import DAEMON
from tests.support.standing_in import StandingIn
from tests.support.telling import make_report

pytestmark = pytest.mark.skipif(host.find_program("dbus-daemon") is None, reason="there is no dbus-daemon")
HANGS_AFTER = 20.0
GOING = told.going()
GOOD = RunView(
    run=GOING.run,
    disk=GOING.uuid,
    name="Blue",
    started=told.NOW,
    ended=told.NOW,
    outcome="ok",
    safe_to_unplug=True,
    headline="'Blue' is backed up: safe to unplug",
    body="12 files (34.0 MB) copied in 3 min 0 s.",
)
BAD = replace(GOOD, outcome="failed", headline="Backup to 'Blue' failed: safe to unplug", todo="Try another cable.")
Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture(scope="module")
def bus() -> Iterator[host.Bus]:
    with host.system_bus(private=True) as bus:
        yield bus


@pytest.fixture(autouse=True)
def on_this_bus(bus: host.Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bus.variable, bus.address)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def service() -> AsyncIterator[StandingIn]:
    service = StandingIn()
    service.disks = [told.disk(device="/dev/sdb1", state="idle")]
    service.runs = [GOOD, *told.runs()[1:]]
    service.reports = {GOOD.run: make_report(GOOD.run)}
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    async def run(*arguments: str) -> tuple[int, str, str]:
        async with asyncio.timeout(HANGS_AFTER):
            code = await asyncio.to_thread(main, arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANGS_AFTER):
        while not met():
            await asyncio.sleep(0.01)


# Status ---------------------------------------------------------------------------------------------------


async def test_status_says_first_whether_the_photos_are_safe(service: StandingIn, command: Command) -> None:
    code, said, _ = await command("status")
    assert code == ExitCode.OK
    assert said.startswith("Your photos are safe: the last good backup is on 'Blue', ")
    assert "\nBlue (here)  " in said
    service.disks = [told.disk(days=41)]
    code, said, _ = await command("status")
    assert code == ExitCode.PROBLEM
    assert said.startswith("Your photos are not safe: ")


async def test_status_shows_a_backup_that_goes_on(service: StandingIn, command: Command) -> None:
    service.started(GOING)
    service.progress(GOING)
    _, said, _ = await command("status")
    assert said.splitlines()[:3] == [
        "Backing up to 'Blue': please leave it plugged in",
        "copying photos (upload)",
        "[##########------------] 48 %, 150.2 GB of 312.0 GB, 98.0 MB/s, 27 min 31 s left",
    ]


async def test_status_for_programs(service: StandingIn, command: Command) -> None:
    code, said, _ = await command("status", "--json")
    told_of = json.loads(said)
    assert (code, told_of["safe"], told_of["running"]) == (ExitCode.OK, True, None)
    (disk,) = told_of["disks"]
    assert (disk["name"], disk["last_good"], disk["next_run"]) == ("Blue", "2026-11-18T15:00:00+00:00", None)
    service.started(GOING)
    service.progress(GOING)
    running = json.loads((await command("status", "--json"))[1])["running"]
    assert (running["stage"], running["percent"], running["seconds_left"]) == ("upload", 48, 1651)


@asynccontextmanager
async def following_it(service: StandingIn, command: Command, *arguments: str) -> AsyncIterator[Command]:
    """A command that follows, and hears from here on all that is said."""
    service.looked = 0
    running = asyncio.ensure_future(command(*arguments))
    await until(lambda: service.looked > 1 or running.done())

    async def ended() -> tuple[int, str, str]:
        return await running

    yield ended


@pytest.mark.parametrize(("run", "code"), [(GOOD, ExitCode.OK), (BAD, ExitCode.PROBLEM)])
async def test_following_shows_each_step_and_ends_with_the_outcome(
    service: StandingIn, command: Command, run: RunView, code: ExitCode
) -> None:
    service.started(GOING)
    service.progress(GOING)
    async with following_it(service, command, "status", "--follow") as ended:
        service.progress(replace(GOING, percent=50))
        service.progress(replace(GOING, stage="flush", line="writing the last data to the disk, 3.0 GB left"))
        service.finished(replace(GOOD, run="another", headline="'Green' is backed up"))
        service.finished(run)
        status, said, _ = await ended()
    assert status == code
    assert said.splitlines() == [
        GOING.line,
        "writing the last data to the disk, 3.0 GB left",
        run.headline,
        run.body,
        *run.todo.splitlines(),
    ]


async def test_following_waits_for_a_backup_to_come(service: StandingIn, command: Command) -> None:
    async with following_it(service, command, "status", "--follow") as ended:
        service.started(GOING)
        service.progress(GOING)
        service.finished(GOOD)
        code, said, _ = await ended()
    assert code == ExitCode.OK
    assert said.startswith("Your photos are safe: ")
    assert f"Ctrl+C ends only this command.\n{GOING.headline}\n{GOING.line}\n{GOOD.headline}\n" in said


async def test_following_for_programs_is_a_document_a_line(service: StandingIn, command: Command) -> None:
    async with following_it(service, command, "status", "--follow", "--json") as ended:
        service.started(GOING)
        service.progress(GOING)
        service.finished(GOOD)
        _, said, _ = await ended()
    told_of = [json.loads(line) for line in said.splitlines()]
    assert [one["event"] for one in told_of] == ["progress", "progress", "finished"]
    assert (told_of[1]["percent"], told_of[1]["uuid"], told_of[2]["outcome"]) == (48, GOING.uuid, "ok")


async def test_following_goes_on_over_a_restart_of_the_service(service: StandingIn, command: Command) -> None:
    service.started(GOING)
    service.progress(GOING)
    cut_off = replace(BAD, outcome="interrupted", headline="Backup to 'Blue' was interrupted: safe to unplug")
    async with following_it(service, command, "status", "--follow") as ended:
        await service.stop()
        service.runs, service.state = [cut_off], {"running": False}
        await service.start()
        code, said, _ = await ended()
    assert code == ExitCode.PROBLEM
    assert said.splitlines() == [
        GOING.line,
        "The service has ended. Waiting until it is there again.",
        cut_off.headline,
        cut_off.body,
        cut_off.todo,
    ]


async def test_a_service_that_does_not_come_back_is_not_waited_for_without_end(
    service: StandingIn, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(following, "AWAY_SECONDS", 0.03)
    service.started(GOING)
    async with following_it(service, command, "status", "--follow") as ended:
        await service.stop()
        code, _, complained = await ended()
    assert code == ExitCode.UNAVAILABLE
    assert following.ENDED in complained


async def test_ctrl_c_ends_the_command_and_nothing_else(service: StandingIn) -> None:
    service.started(GOING)
    program = (sys.executable, "-m", "immich_usb_backup", "status", "--follow")
    environment = {**os.environ, "PYTHONPATH": str(DAEMON)}
    process = await asyncio.create_subprocess_exec(
        *program, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(HANGS_AFTER):
        await until(lambda: service.looked > 1)
        process.send_signal(signal.SIGINT)
        said, complained = await process.communicate()
    assert process.returncode == ExitCode.PROBLEM
    assert said.decode().splitlines()[-1] == "Only this command has ended; the service goes on."
    assert b"Traceback" not in complained
    assert service.asked == []


class Watching:
    """Implements ``shown.Shown``; remembers the files that were shown."""

    wants_file = True

    def __init__(self) -> None:
        self.files: list[str] = []

    def progress(self, now: Going, current: str) -> None:
        """Remember."""
        self.files.append(current)

    def note(self, text: str) -> None:
        """Nothing."""

    def finished(self, run: RunView) -> None:
        """Nothing."""

    def left(self) -> None:
        """Nothing."""


@pytest.mark.parametrize("refused", [False, True])
async def test_the_file_is_shown_to_who_may_know_it(
    service: StandingIn, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    monkeypatch.setattr(following, "TICK_SECONDS", 0.01)
    service.current, service.refused = "a.jpg", {dbus_names.GET_CURRENT_FILE} if refused else set()
    service.started(GOING)
    shown, client = Watching(), await Bus.system()
    follow = following.Follow(client, shown)
    async with asyncio.timeout(HANGS_AFTER), follow.listening():
        outcome = asyncio.ensure_future(follow.outcome())
        await until(lambda: "a.jpg" in shown.files or service.denied > 0)
        service.progress(GOING)
        await until(lambda: len(shown.files) > 1)
        service.finished(GOOD)
        assert await outcome == replace(GOOD, started=None, ended=None)
    await client.close()
    assert service.denied == refused
    assert ("a.jpg" in shown.files) is not refused


# Runs -----------------------------------------------------------------------------------------------------


async def test_the_history_at_a_glance(service: StandingIn, command: Command) -> None:
    service.disks = []
    code, said, _ = await command("history")
    assert code == ExitCode.OK
    lines = said.splitlines()
    assert lines[0] == "oldest ||/!|X| newest"
    assert lines[3].startswith("Blue ")
    assert lines[3].endswith(GOOD.run)
    assert len(lines) == 3 + len(service.runs)
    assert len((await command("history", "-n", "2"))[1].splitlines()) == 3 + 2
    failed = (await command("history", "--failed"))[1]
    assert "good " not in failed
    assert len(failed.splitlines()) == 3 + 3


@pytest.mark.parametrize(("arguments", "code"), [(["Blue"], ExitCode.OK), (["Green"], ExitCode.NOT_HERE)])
@pytest.mark.usefixtures("service")
async def test_the_history_of_a_disk(command: Command, arguments: list[str], code: ExitCode) -> None:
    ended, said, complained = await command("history", *arguments)
    assert ended == code
    assert ("No disk 'Green' is known." in complained) == (code is ExitCode.NOT_HERE)
    assert "家族" not in said


async def test_the_history_for_programs_is_whole_reports(service: StandingIn, command: Command) -> None:
    service.runs = [told.runs()[0], service.runs[0], *service.runs[1:]]
    (report,) = json.loads((await command("history", "-n", "1", "--json"))[1])
    assert (report["version"], report["report"]["run_id"]) == (1, GOOD.run)


@pytest.mark.parametrize("wanted", ["last", GOOD.run, GOOD.run[:12], "Blue"])
async def test_a_run_is_meant_in_several_ways(service: StandingIn, command: Command, wanted: str) -> None:
    code, said, _ = await command("show", wanted)
    assert code == ExitCode.OK
    assert said.startswith("'Blue' is backed up: safe to unplug.\n")
    assert f"Run       {GOOD.run}\n" in said
    assert json.loads((await command("show", wanted, "--json"))[1])["report"]["run_id"] == GOOD.run
    code, _, _ = await command("retry", wanted)
    assert (code, service.asked) == (ExitCode.OK, [("Retry", GOOD.run)])


async def test_an_old_run_is_found_by_its_id(service: StandingIn, command: Command) -> None:
    service.reports["20190101T000000Z-1"] = make_report("20190101T000000Z-1")
    for wanted in ("20190101T000000Z-1", "20190101T000000Z-1."):
        assert (await command("show", wanted))[0] == ExitCode.OK


@pytest.mark.usefixtures("service")
async def test_what_could_be_several_runs_is_none(command: Command) -> None:
    code, _, complained = await command("show", "2026112")
    assert code == ExitCode.PROBLEM
    assert "could be 3 runs: 20261121T" in complained
    for wanted in ("Green", "20200101T000000Z-1"):
        code, _, complained = await command("show", wanted)
        assert code == ExitCode.NOT_HERE, complained


async def test_who_may_not_read_a_report_is_shown_what_everybody_may(service: StandingIn, command: Command) -> None:
    service.refused = {dbus_names.GET_REPORT}
    code, said, _ = await command("show", "last")
    assert code == ExitCode.OK
    assert said.splitlines()[0] == GOOD.headline
    assert GOOD.body in said.splitlines()
    assert said.endswith(f"sudo immich-usb-backup show {GOOD.run}\n")
    code, said, complained = await command("show", "last", "--json")
    assert (code, said) == (ExitCode.PROBLEM, "")
    assert "sudo" in complained


async def test_a_run_that_goes_on_has_no_report_yet(service: StandingIn, command: Command) -> None:
    service.runs, service.reports = told.runs(), {}
    code, said, _ = await command("show")
    assert code == ExitCode.OK
    assert "it goes on" in said
    assert said.endswith("immich-usb-backup status --follow\n")


async def test_logs_become_journalctl(
    service: StandingIn, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "journalctl"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(DAEMON), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    program = (sys.executable, "-m", "immich_usb_backup", "logs", "Blue", "--follow")
    process = await asyncio.create_subprocess_exec(*program, env=environment, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(HANGS_AFTER):
        said, _ = await process.communicate()
    assert said.decode().splitlines() == [f"IMMICH_BACKUP_RUN={GOOD.run}", "--follow", "--no-tail"]
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert (await command("logs"))[0] == ExitCode.UNAVAILABLE


# What is asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["cancel"], ("Cancel", "")),
        (["cancel", "Blue"], ("Cancel", "Blue")),
        (["forget", "Blue"], ("Forget", "Blue")),
        (["backup", "Blue", "--mode", "full"], ("Backup", "Blue", "full")),
    ],
)
async def test_what_is_asked_of_the_service(
    service: StandingIn, command: Command, arguments: list[str], asked: tuple[str, ...]
) -> None:
    code, said, _ = await command(*arguments)
    assert (code, service.asked) == (ExitCode.OK, [asked])
    assert "'Blue'" in said
    service.refused = {asked[0]}
    code, said, complained = await command(*arguments)
    assert (code, said) == (ExitCode.PROBLEM, "")
    assert "Run it with sudo, or join a group." in complained


@pytest.mark.parametrize("arguments", [["backup", "Blue", "--wait"], ["retry", "last", "--wait"], ["verify", "Blue"]])
async def test_waiting_ends_with_the_outcome(service: StandingIn, command: Command, arguments: list[str]) -> None:
    for run, code in ((GOOD, ExitCode.OK), (BAD, ExitCode.PROBLEM)):
        service.asked = []
        running = asyncio.ensure_future(command(*arguments))
        await until(lambda: bool(service.asked))
        other = replace(GOING, run="other", disk="Green", uuid="0000", headline="Green", line="Green")
        service.started(other)
        service.progress(other)
        service.finished(replace(run, run="other", disk="0000", name="Green", headline="Green"))
        service.started(GOING)
        service.progress(GOING)
        service.finished(run)
        ended, said, _ = await running
        assert ended == code
        assert f"{GOING.headline}\n{GOING.line}\n{run.headline}\n" in said
        assert "Green" not in said


@pytest.mark.parametrize("name", ["status", "cancel", "show", "logs", "retry", "forget"])
async def test_without_the_service_a_command_says_where_to_look(command: Command, name: str) -> None:
    code, _, complained = await command(name, *(["Blue"] if name in {"retry", "forget"} else []))
    assert code == ExitCode.UNAVAILABLE
    assert "systemctl status immich-usb-backup" in complained


async def test_the_history_is_read_without_the_service_where_it_may_be(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert (await command("history"))[0] == ExitCode.UNAVAILABLE
    report = make_report()
    book = SqliteHistory(tmp_path / "state.db")
    await book.prepare()
    await book.begin(report, PlugIn(boot_id="b", disk_sequence=1, device_number=1))
    await book.finish(report)
    for arguments in (["history"], ["history", "blue"], ["history", "1234-abcd", "--state", str(tmp_path)]):
        code, said, _ = await command(*arguments)
        assert (code, report.run_id in said) == (
            ExitCode.NOT_HERE if "blue" in arguments else ExitCode.OK,
            "blue" not in arguments,
        )
