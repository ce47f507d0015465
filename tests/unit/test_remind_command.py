"""What the timers start, and what a run that failed says of the next try: words, exit codes, and a service that is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.fakes import World
from tests.support.running import daemon_on
from tests.support.telling import make_report

from immich_usb_backup import messages
from immich_usb_backup.__main__ import main
from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.adapters.service import Service
from immich_usb_backup.adapters.watchers import StatusLine
from immich_usb_backup.cli import backup, remind
from immich_usb_backup.cli.asking import Unanswered
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, BusLost, DiskFull, DiskGone, FlushFailed
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import Finding, Notice, NoticeKind, Outcome, PlugIn, RunReport, Severity
from immich_usb_backup.policy.again import again_line
from immich_usb_backup.policy.outcome import finding_of
from immich_usb_backup.policy.text import moment
from immich_usb_backup.requests import Refusal

MAIL = '[mail]\nhost = "localhost"\nto = ["me@example.org"]\n'


@pytest.fixture
async def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with a good run of forty days ago, and no service on any bus."""
    monkeypatch.setattr(remind, "ask", _refusing(BusLost("The system bus cannot be reached")))
    folder = tmp_path / "state"
    (folder / "outbox").mkdir(parents=True)
    history = SqliteHistory(folder / "state.db")
    await history.prepare()
    ended = datetime.now(UTC) - timedelta(days=40)
    report = replace(make_report(), started=ended, ended=ended)
    await history.begin(report, PlugIn(boot_id="b", disk_sequence=1, device_number=1))
    await history.finish(report)
    (tmp_path / "config.toml").write_text(MAIL)
    return folder


def reminded(state: Path) -> int:
    return main(["remind", f"--state={state}", f"--config={state.parent / 'config.toml'}"])


def test_a_dead_service_keeps_nobody_from_being_reminded(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reminded(state) == 0
    said = capsys.readouterr().out
    assert "cannot be reached" in said
    assert "Reminded of 1 disk without a fresh backup." in said
    (entry,) = (state / "outbox").glob("reminder-*.json")
    text = json.dumps(json.loads(entry.read_text()))
    assert "'Blue' is 40 days old" in text
    assert "The backup service does not run" in text
    assert reminded(state) == 0
    assert "Nobody is to be reminded" in capsys.readouterr().out
    assert len([*(state / "outbox").glob("*.json")]) == 1


def test_a_service_that_never_ran_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Unanswered(ExitCode.UNAVAILABLE, "The service does not answer")
    monkeypatch.setattr(remind, "ask", _refusing(gone))
    (tmp_path / "config.toml").write_text("")
    assert reminded(tmp_path / "state") == 0
    assert (tmp_path / "state/reminders.json").exists()


@pytest.mark.parametrize(("number", "words"), [(0, "Nobody is to be reminded"), (2, "Reminded of 2 disks")])
def test_a_service_that_runs_does_it(
    number: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remind, "ask", lambda member: number)
    assert main(["remind"]) == 0
    assert capsys.readouterr().out.startswith(words)


def test_who_may_not_ask_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(remind, "ask", _refusing(Unanswered(ExitCode.PROBLEM, "You may not", why=Refusal.NOT_ALLOWED)))
    assert main(["remind"]) == ExitCode.PROBLEM
    assert "You may not" in capsys.readouterr().err


def _refusing(error: BackupError) -> Callable[..., object]:
    def ask(*_: str) -> object:
        raise error

    return ask


async def test_the_service_reminds_when_it_is_asked(world: World, config: Config) -> None:
    ended = world.ports.clock.now() - timedelta(days=40)
    report = replace(make_report(), started=ended, ended=ended)
    await world.history.begin(report, PlugIn(boot_id="b", disk_sequence=99, device_number=1))
    await world.history.finish(report)
    async with daemon_on(world, config) as running:
        assert await running.daemon.asked.remind() == 1
        assert await running.daemon.asked.remind() == 0
    (notice,) = world.outbox.notices.values()
    assert notice.headline.startswith("'Blue' is 40 days old")


async def test_the_service_reminds_of_no_disk_that_it_is_backing_up_to(world: World, config: Config) -> None:
    ended, stick = world.ports.clock.now() - timedelta(days=40), world.stick()
    report = make_report()
    report = replace(report, started=ended, ended=ended, disk=replace(report.disk, uuid=stick.seen.uuid))
    await world.history.begin(report, PlugIn(boot_id="b", disk_sequence=99, device_number=1))
    await world.history.finish(report)
    async with daemon_on(world, config) as running:
        world.script.hold("copier.copy upload")
        world.devices.plug(stick)
        await running.reached("copier.copy upload")
        assert await running.daemon.asked.remind() == 0
        world.script.go_on("copier.copy upload")
        await running.runs(1)


# The schedule's ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", [Refusal.NO_SUCH_DISK, Refusal.BUSY])
def test_a_disk_that_is_away_or_busy_is_no_failure_of_its_timer(
    why: Refusal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = ExitCode.NOT_HERE if why is Refusal.NO_SUCH_DISK else ExitCode.PROBLEM
    monkeypatch.setattr(backup, "ask", _refusing(Unanswered(code, "No disk 'Blue' is plugged in", why=why)))
    assert main(["backup", "--scheduled", "--", "Blue"]) == 0
    said = capsys.readouterr()
    assert said.out == "No scheduled backup now: No disk 'Blue' is plugged in\n"
    assert not said.err


@pytest.mark.parametrize(("why", "code"), [("", ExitCode.UNAVAILABLE), (Refusal.AMBIGUOUS_DISK, ExitCode.PROBLEM)])
def test_everything_else_is_a_failure(why: str, code: ExitCode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "ask", _refusing(Unanswered(code, "no", why=why)))
    assert main(["backup", "--scheduled", "Blue"]) == code


def test_a_scheduled_backup_names_its_disk_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def ask(*words: str) -> str:
        asked.append(words)
        return "Blue"

    monkeypatch.setattr(backup, "ask", ask)
    assert main(["backup", "--scheduled", "--", "--help"]) == 0
    assert asked == [("Backup", "--help", "")]


# The next try -----------------------------------------------------------------------------------------------


def failed(*findings: Finding, outcome: Outcome = Outcome.FAILED, **changes: object) -> RunReport:
    return replace(make_report("R1", outcome=outcome, findings=findings), **changes)  # type: ignore[arg-type]


FLUSH = finding_of(FlushFailed("x"))


def test_a_disk_that_is_still_there_can_be_tried_now() -> None:
    line = again_line(failed(FLUSH, plugged_in=True))
    assert "It is not tried again by itself while the disk stays plugged in" in line
    assert line.endswith("now: sudo immich-usb-backup retry R1.")


def test_a_disk_with_a_schedule_is_tried_then() -> None:
    at = moment(datetime(2026, 11, 22, 3).astimezone())  # by the clock on this machine's wall
    line = again_line(failed(FLUSH, plugged_in=True, schedule="*-*-* 03:00:00"))
    assert line.startswith(f"It is tried again by its schedule on {at}.")
    assert "Now: sudo immich-usb-backup retry R1." in line
    vague = again_line(failed(FLUSH, plugged_in=True, schedule="Mon..Fri 03:00"))
    assert vague.startswith("It is tried again by its schedule (Mon..Fri 03:00).")


def test_a_disk_that_is_gone_is_tried_at_the_next_plug_in() -> None:
    line = again_line(failed(finding_of(DiskGone("x")), outcome=Outcome.INTERRUPTED, plugged_in=False))
    assert line == "It is tried again as soon as the disk is plugged in."


def test_what_must_be_put_right_first_is_said() -> None:
    line = again_line(failed(finding_of(DiskFull("x")), plugged_in=True))
    assert line.startswith("As things are it would fail again: do that first.")
    assert not again_line(failed(FLUSH, plugged_in=True)).startswith("As things are")


def test_an_older_report_promises_nothing_that_it_does_not_know() -> None:
    line = again_line(failed(FLUSH))
    assert "when the disk is plugged in again" in line
    assert "Where it still is plugged in, now: sudo immich-usb-backup retry R1." in line


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.PARTIAL])
def test_a_run_that_did_its_work_says_nothing_of_it(outcome: Outcome) -> None:
    assert again_line(failed(outcome=outcome, plugged_in=True)) == ""


def test_every_channel_has_the_line() -> None:
    report = failed(FLUSH, plugged_in=True)
    assert messages.outcome_message(report).todo[-1] == again_line(report)


async def test_a_run_knows_whether_its_disk_is_still_there(world: World, config: Config) -> None:
    schedule = Config.model_validate({"disk": {"Blue": {"schedule": "daily 03:00"}}}).disk
    stick = world.stick(label="Blue")
    stick.write_protected = True
    async with daemon_on(world, config.model_copy(update={"disk": schedule})) as running:
        world.devices.plug(stick)
        await running.runs(1)
    assert world.outcomes == [Outcome.FAILED]
    assert (world.report.plugged_in, world.report.schedule) == (True, "*-*-* 03:00:00")


# The status line --------------------------------------------------------------------------------------------


class Recording(Service):
    """Keeps the status lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def status(self, text: str) -> None:
        """Keep it."""
        self.lines.append(text)


@pytest.mark.parametrize(
    ("kind", "lines"), [(NoticeKind.WAITING, ["Idle: it waits"]), (NoticeKind.REMINDER, []), (NoticeKind.STRANGER, [])]
)
def test_systemctl_status_says_what_is_waited_for(kind: NoticeKind, lines: list[str]) -> None:
    service = Recording()
    report = make_report()
    StatusLine(service, lambda: 0.0).notice(
        Notice(notice_id="x", kind=kind, server="nas", time=report.ended, headline="it waits")
    )
    assert service.lines == lines


def test_a_finding_that_is_no_error_is_no_obstacle() -> None:
    odd = Finding(code="something-else", severity=Severity.FAILED, message="x")
    assert not again_line(failed(odd, plugged_in=False)).startswith("As things are")
