"""The outbox and the book of deliveries, on real files."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.fakes import FakeHistory, Script
from tests.support.telling import HOSTILE_NAMES, NOON, Recorder, hostile_report, make_report

from immich_usb_backup.adapters import atomic, outbox, report_json
from immich_usb_backup.adapters.delivered import FILE_NAME, DeliveredLedger
from immich_usb_backup.adapters.outbox import OutboxFolder
from immich_usb_backup.adapters.wanted_outbox import WantedOutbox
from immich_usb_backup.config import Config
from immich_usb_backup.errors import DeliveryFailed, StateDamaged
from immich_usb_backup.events import Event
from immich_usb_backup.model import Notice, NoticeKind, Outcome, PlugIn
from immich_usb_backup.policy import delivery
from immich_usb_backup.policy.news import Begun, Ended


@pytest.fixture
def log() -> Recorder:
    return Recorder()


@pytest.fixture
def box(tmp_path: Path, log: Recorder) -> OutboxFolder:
    return OutboxFolder(tmp_path, log)


# Reports as JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", Outcome)
def test_a_report_comes_back_as_it_was(outcome: Outcome) -> None:
    report = make_report(outcome=outcome)
    assert report_json.load(report_json.dump(report)) == report


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_every_name_becomes_valid_json(name: str) -> None:
    content = report_json.dump(hostile_report(name))
    loaded = report_json.load(content)
    assert json.loads(content)["version"] == 1
    assert loaded.disk.name == name.replace("\udcff", "\\xff")


def test_fields_of_a_later_minor_change_are_ignored() -> None:
    document = json.loads(report_json.dump(make_report()))
    document["report"]["weather"] = "rain"
    assert report_json.load(json.dumps(document).encode()) == make_report()


def test_what_is_no_report_is_named() -> None:
    good = json.loads(report_json.dump(make_report()))
    naive = json.loads(json.dumps(good))
    naive["report"]["ended"] = "2026-11-21T12:00:00"
    for content, problem in (
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a run report"),
        (b"{}", "not a run report"),
        (b'{"version": 2, "report": {}}', "newer version"),
        (b'{"version": 1, "report": {"run_id": 1}}', "not a run report"),
        (report_json.dump(make_report())[:-20], "not JSON"),
        (json.dumps(naive).encode(), "without a zone"),
    ):
        with pytest.raises(StateDamaged, match=problem):
            report_json.load(content)


NOTICE_DOCUMENT = {"notice_id": "x", "kind": "reminder", "server": "nas", "headline": "x"}


# The folder -----------------------------------------------------------------------------------------------


async def test_put_pending_discard(box: OutboxFolder, tmp_path: Path) -> None:
    later = dataclasses.replace(make_report("a-later"), ended=NOON.replace(hour=13))
    await box.put(later)
    await box.put(make_report("b-earlier"))
    first, second = await box.pending()
    assert (first.name, second.news) == ("b-earlier.json", Ended(report=later)), "the oldest run first"
    assert (tmp_path / first.name).stat().st_mode & 0o777 == 0o640
    await box.discard(first.name)
    await box.discard(first.name)
    await box.discard(second.name)
    assert os.listdir(tmp_path) == []


async def test_the_same_run_twice_is_one(box: OutboxFolder) -> None:
    await box.put(make_report())
    await box.put(make_report())
    assert len(await box.pending()) == 1


CRASH = """
import asyncio, os, signal, sys
from datetime import timedelta
from pathlib import Path
from immich_usb_backup.adapters.outbox import OutboxFolder
from immich_usb_backup.adapters.wanted_outbox import WantedOutbox
from immich_usb_backup.config import Config
from tests.support.telling import Recorder, make_report
def crash(*_):
    os.kill(os.getpid(), signal.SIGKILL)
os.{call} = crash
asyncio.run(OutboxFolder(Path(sys.argv[1]), Recorder()).put(make_report()))
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
async def test_a_crash_in_the_middle_of_writing_leaves_no_entry(call: str, box: OutboxFolder, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'daemon'}:{root}"}
    command = [sys.executable, "-c", CRASH.format(call=call), str(tmp_path)]
    done = subprocess.run(command, env=environment, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1, "it was in the middle of it"
    assert await box.pending() == ()
    await box.put(make_report())
    assert [entry.news for entry in await box.pending()] == [Ended(report=make_report())]
    assert os.listdir(tmp_path) == [f"{make_report().run_id}.json"]


NOTICE = Notice(
    notice_id="reminder-20261121",
    kind=NoticeKind.REMINDER,
    server="nas",
    time=NOON,
    headline="'Blue' is 41 days old",
    lines=("No disk has a fresh backup.",),
    todo=("Plug it in.",),
    disk_uuid="1234-ABCD",
    disk_name="not\udcfftext",
)


async def test_beginnings_and_notices_lie_beside_outcomes_in_the_order_of_their_times(
    box: OutboxFolder, tmp_path: Path
) -> None:
    report = make_report("r1", outcome=Outcome.FAILED)
    before = [
        make_report("r1"),
        make_report("r0", ended=NOON - timedelta(days=1)),
        make_report("later", ended=NOON + timedelta(days=1)),
    ]
    await box.put(report, before)
    await box.put_begun(report)
    await box.put_notice(dataclasses.replace(NOTICE, time=NOON - timedelta(hours=9)))
    await box.put_notice(NOTICE)
    assert sorted(os.listdir(tmp_path)) == ["r1.begun.json", "r1.json", "reminder-20261121.json"]
    begun, outcome, notice = await box.pending()
    assert begun.news == Begun(report=report)
    assert isinstance(outcome.news, Ended)
    assert (outcome.news.report, [one.run_id for one in outcome.news.recent]) == (report, ["r0"])
    assert notice.news == dataclasses.replace(NOTICE, disk_name="not\\xfftext")


async def test_an_entry_of_an_earlier_version_is_read(box: OutboxFolder, tmp_path: Path) -> None:
    """It has nothing beside the report; and one whose neighbours cannot be read is told without them."""
    document = json.loads(report_json.dump(make_report()))
    (tmp_path / "a.json").write_text(json.dumps(document))
    (tmp_path / "b.json").write_text(json.dumps({**document, "recent": [{"run_id": 1}]}))
    assert [entry.news for entry in await box.pending()] == [Ended(report=make_report())] * 2


@pytest.mark.parametrize(
    "document",
    [
        {"version": 1, "notice": {"notice_id": "x"}},
        {"version": 1, "begun": 3},
        {"version": 2, "notice": {}},
        {"version": 1, "notice": {**NOTICE_DOCUMENT, "time": "2026-11-21T12:00:00"}},
    ],
)
async def test_what_is_no_notice_is_named(document: object, box: OutboxFolder, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(document))
    (entry,) = await box.pending()
    assert entry.foreign
    assert entry.problem


@pytest.mark.parametrize("notice_id", ["../x", "", "a/b", ".hidden", "a\0b", "a" * 300, "a\nb"])
async def test_a_notice_id_cannot_lead_out_of_the_folder(notice_id: str, box: OutboxFolder, tmp_path: Path) -> None:
    with pytest.raises(DeliveryFailed):
        await box.put_notice(dataclasses.replace(NOTICE, notice_id=notice_id))
    assert os.listdir(tmp_path) == []


# Who wants it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "left"),
    [
        ({}, []),
        ({"mail": {"host": "localhost", "to": ["a@x.org"]}}, ["r1.json", "reminder-20261121.json"]),
        ({"push": {}}, ["r1.json", "reminder-20261121.json"]),
        ({"ping": {}}, ["r1.begun.json", "r1.json"]),
    ],
)
async def test_only_what_somebody_wants_is_left(
    sections: dict[str, object], left: list[str], box: OutboxFolder, tmp_path: Path, log: Recorder
) -> None:
    script = Script()
    history = FakeHistory(script)
    for run_id in ("r0", "r1"):
        await history.begin(make_report(run_id), _plug_in())
        await history.finish(make_report(run_id))
    wanted = WantedOutbox(box, history=history, config=lambda: Config.model_validate(sections), log=log)
    await wanted.put_begun(make_report("r1"))
    await wanted.put(make_report("r1"))
    await wanted.put_notice(NOTICE)
    assert sorted(os.listdir(tmp_path)) == left
    for entry in await box.pending():
        assert not isinstance(entry.news, Ended) or [one.run_id for one in entry.news.recent] == ["r0"]


def _plug_in() -> PlugIn:
    return PlugIn(boot_id="b", disk_sequence=1, device_number=2)


async def test_foreign_things_are_named_and_do_not_block(box: OutboxFolder, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo.json")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
    (tmp_path / os.fsdecode(b"\xff.json")).write_bytes(b"{")
    (tmp_path / "newer.json").write_bytes(b'{"version": 99}')
    await box.put(make_report())
    entries = await box.pending()
    bad = [entry for entry in entries if entry.news is None]
    assert len(entries) == 8
    assert len(bad) == 7
    assert all(entry.foreign and entry.problem for entry in bad), bad
    for entry in bad:
        await box.set_aside(entry.name)
    assert [entry.news for entry in await box.pending()] == [Ended(report=make_report())]
    assert len(os.listdir(tmp_path)) == 8, "nothing is thrown away"


async def test_a_huge_file_is_not_read(box: OutboxFolder, tmp_path: Path) -> None:
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(10**12)
    (entry,) = await box.pending()
    assert entry.foreign
    assert "larger" in entry.problem


async def test_a_folder_that_is_not_there_is_said(tmp_path: Path, log: Recorder) -> None:
    box = OutboxFolder(tmp_path / "missing", log)
    with pytest.raises(DeliveryFailed, match="cannot be written: No such file"):
        await box.put(make_report())
    with pytest.raises(DeliveryFailed, match="cannot be read"):
        await box.pending()


@pytest.mark.parametrize("run_id", ["../x", "", "a/b", ".hidden", "a\0b", "a" * 300])
async def test_a_run_id_cannot_lead_out_of_the_folder(run_id: str, box: OutboxFolder, tmp_path: Path) -> None:
    with pytest.raises(DeliveryFailed):
        await box.put(make_report(run_id))
    assert os.listdir(tmp_path) == []


async def test_an_outbox_that_nobody_empties_stays_bounded(
    box: OutboxFolder, log: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outbox, "KEPT_ENTRIES", 3)
    for number in range(5):
        await box.put(make_report(f"r{number}"))
        time.sleep(0.02)  # change times have the resolution of a kernel tick
    assert [entry.name for entry in await box.pending()] == ["r2.json", "r3.json", "r4.json"]
    assert [fields["about"] for _, fields in log.said] == ["r0", "r1"]
    (tmp_path / ".new-left.json").write_text("")
    (tmp_path / ".unreadable-x").write_text("")
    month = outbox.KEPT_SECONDS + 60
    assert outbox._prune(tmp_path, time.time() + month) == ("r2", "r3", "r4")
    assert os.listdir(tmp_path) == []


async def test_a_planted_link_is_not_written_through(box: OutboxFolder, tmp_path: Path) -> None:
    victim = tmp_path.parent / "victim"
    victim.write_text("mine")
    (tmp_path / f"{atomic.TEMPORARY}{make_report().run_id}.json").symlink_to(victim)
    await box.put(make_report())
    assert victim.read_text() == "mine"


# The book -------------------------------------------------------------------------------------------------


def _attempts(run_id: str = "r1", days_ago: int = 0) -> delivery.Attempts:
    now = NOON - timedelta(days=days_ago)
    return delivery.begun(None, run_id=run_id, channel="mail:a@x", now=now)


async def test_the_book_outlives_the_process(tmp_path: Path, log: Recorder) -> None:
    book = DeliveredLedger(tmp_path, log)
    assert await book.attempts("r1", "mail:a@x") is None
    await book.record(delivery.delivered(_attempts()))
    again = DeliveredLedger(tmp_path, log)
    assert await again.attempts("r1", "mail:a@x") == delivery.delivered(_attempts())
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_the_book_forgets_what_is_long_over(tmp_path: Path, log: Recorder) -> None:
    book = DeliveredLedger(tmp_path, log)
    await book.record(_attempts("old", days_ago=91), _attempts("young", days_ago=31))
    await book.record(_attempts("new"))
    assert await book.attempts("old", "mail:a@x") is None
    assert await book.attempts("young", "mail:a@x") is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 9}', b'{"version":1,"attempts":[{}]}', b"\xff"])
async def test_a_damaged_book_is_kept_named_and_begun_anew(content: bytes, tmp_path: Path, log: Recorder) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    book = DeliveredLedger(tmp_path, log)
    assert await book.attempts("r1", "mail:a@x") is None
    assert log.events() == [Event.OUTBOX_UNREADABLE]
    assert (tmp_path / "delivered.unreadable").read_bytes() == content
    await book.record(_attempts())
    assert await DeliveredLedger(tmp_path, log).attempts("r1", "mail:a@x") == _attempts()


async def test_a_book_that_cannot_be_written_is_an_error_and_still_remembered(tmp_path: Path, log: Recorder) -> None:
    book = DeliveredLedger(tmp_path / "missing", log)
    with pytest.raises(DeliveryFailed, match="cannot be written"):
        await book.record(_attempts())
    assert await book.attempts("r1", "mail:a@x") == _attempts()
