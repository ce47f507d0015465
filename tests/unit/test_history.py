"""The history on real SQLite: what was said to be kept is kept, whatever happens to the process or the file."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.telling import NOON, make_report

from immich_usb_backup.adapters.history import VERSION, SqliteHistory
from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.model import Outcome, PlugIn

PLUG_IN = PlugIn(boot_id="boot", disk_sequence=7, device_number=2049)
ROOT = Path(__file__).parents[2]
CHILD = """
import asyncio, os, signal, sqlite3, sys
from pathlib import Path
from immich_usb_backup.adapters import history
from tests.support.telling import make_report
from tests.unit.test_history import PLUG_IN
path, moment = Path(sys.argv[1]), sys.argv[2]
book = history.SqliteHistory(path)
asyncio.run(book.prepare())
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "in the middle of begin":
    history._insert = die
asyncio.run(book.begin(make_report(), PLUG_IN))
if moment == "in the middle of finish":
    database = sqlite3.connect(path)
    database.execute("PRAGMA cache_spill = 1")
    database.execute("UPDATE runs SET outcome = 'ok', report = zeroblob(5000000)")
die()
"""


@pytest.fixture
async def book(tmp_path: Path) -> SqliteHistory:
    book = SqliteHistory(tmp_path / "state" / "state.db")
    assert await book.prepare() is None
    return book


async def test_a_run_is_cut_off_until_it_is_finished_and_waiting_until_it_is_announced(book: SqliteHistory) -> None:
    report = make_report()
    await book.begin(replace(report, outcome=Outcome.INTERRUPTED), PLUG_IN)
    assert [cut.run_id for cut in await book.cut_off()] == [report.run_id]
    assert await book.runs(10) == ()
    await book.finish(report)
    assert await book.cut_off() == ()
    assert await book.unannounced() == await book.runs(10) == (report,)
    await book.announced(report.run_id)
    assert await book.unannounced() == ()
    assert await book.prepare() is None
    assert await book.runs(10) == (report,)


async def test_a_plug_in_is_handled_as_soon_as_its_run_begins(book: SqliteHistory) -> None:
    assert not await book.handled(PLUG_IN)
    await book.begin(make_report(), PLUG_IN)
    assert await book.handled(PLUG_IN)
    for other in (replace(PLUG_IN, disk_sequence=8), replace(PLUG_IN, boot_id="x"), replace(PLUG_IN, device_number=1)):
        assert not await book.handled(other)


async def test_plug_ins_do_not_pile_up(book: SqliteHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immich_usb_backup.adapters.history._PLUG_INS_KEPT", 3)
    for number in range(5):
        await book.begin(make_report(f"run-{number}"), replace(PLUG_IN, disk_sequence=number))
    kept = [await book.handled(replace(PLUG_IN, disk_sequence=number)) for number in range(5)]
    assert kept == [False, False, True, True, True]


async def test_the_newest_runs_come_first_and_name_the_disk(book: SqliteHistory) -> None:
    for day in range(3):
        report = make_report(f"run-{day}", name=f"Blue {day}")
        report = replace(report, started=NOON + timedelta(days=day))
        await book.begin(report, replace(PLUG_IN, disk_sequence=day))
        await book.finish(report)
    assert [report.run_id for report in await book.runs(2)] == ["run-2", "run-1"]
    assert await book.disk_name(report.disk.uuid) == "Blue 2"
    assert await book.disk_name("unknown") is None


@pytest.mark.parametrize("moment", ["in the middle of begin", "after begin", "in the middle of finish"])
async def test_a_process_that_is_killed_leaves_the_last_whole_state(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "state.db"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'daemon'}"}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", CHILD, str(path), moment], env=environment, cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    book = SqliteHistory(path)
    assert await book.prepare() is None
    begun = moment != "in the middle of begin"
    assert [report.run_id for report in await book.cut_off()] == ([make_report().run_id] if begun else [])
    assert await book.handled(PLUG_IN) is begun
    assert await book.runs(10) == ()


@pytest.mark.parametrize("damage", ["text", "zeros", "page"])
async def test_a_damaged_file_is_set_aside_and_a_new_one_works(book: SqliteHistory, damage: str) -> None:
    await book.begin(make_report(), PLUG_IN)
    content = book._path.read_bytes()
    page = b"\xa5" * 4096
    spoilt = {"text": b"no database " * 500, "zeros": b"\0" * 8192, "page": content[:4096] + page * 10}[damage]
    book._path.write_bytes(spoilt)
    moved = await book.prepare()
    assert moved is not None
    assert Path(moved).read_bytes() == spoilt
    await book.begin(make_report(), PLUG_IN)
    assert len(await book.cut_off()) == 1


async def test_what_a_newer_version_wrote_is_left_alone(book: SqliteHistory) -> None:
    with sqlite3.connect(book._path) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    before = book._path.read_bytes()
    with pytest.raises(StateDamaged, match="newer version"):
        await book.prepare()
    assert book._path.read_bytes() == before


async def test_what_cannot_be_written_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StateDamaged):
        await SqliteHistory(tmp_path / "state.db").prepare()
    with pytest.raises(StateDamaged):
        await SqliteHistory(tmp_path / "state.db").cut_off()


async def test_many_at_once_wait_for_each_other(book: SqliteHistory) -> None:
    await asyncio.gather(*[book.begin(make_report(f"run-{n}"), replace(PLUG_IN, disk_sequence=n)) for n in range(10)])
    assert len(await book.cut_off()) == 10
