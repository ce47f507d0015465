"""A verdict is kept with its report, and whoever looks at the history sees it."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.support.telling import NOON, make_report

from immich_usb_backup.adapters import report_json
from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.cli import history
from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.model import DiskVerdict, PlugIn, Restorable
from immich_usb_backup.policy.cells import plain
from immich_usb_backup.policy.run_words import report_lines

VERDICT = DiskVerdict(
    restorable=Restorable.EXCEPT,
    dump="d.sql.gz",
    dump_time=datetime(2026, 11, 20, 2, tzinfo=UTC),
    assets=3,
    present=2,
    proven=1,
    extra_folders=('extra.p = "/p"',),
    oldest_proof=datetime(2026, 3, 3, tzinfo=UTC),
    reasons=("1 photo is not on the disk",),
    exceptions=("upload/\udcff.jpg: not on the disk",),
    exception_count=1,
)


def test_it_is_the_same_when_it_is_read_again() -> None:
    read = report_json.load(report_json.dump(make_report(verdict=VERDICT))).verdict
    assert read is not None
    assert read.exceptions == ("upload/\\xff.jpg: not on the disk",)
    assert (read.restorable, read.dump_time, read.oldest_proof) == (
        Restorable.EXCEPT,
        VERDICT.dump_time,
        VERDICT.oldest_proof,
    )


def test_a_report_from_before_there_were_verdicts_is_read() -> None:
    document = json.loads(report_json.dump(make_report()))
    del document["report"]["verdict"]
    assert report_json.load(json.dumps(document).encode()).verdict is None


@pytest.mark.parametrize("field", ["dump_time", "oldest_proof"])
def test_a_time_without_a_zone_is_refused(field: str) -> None:
    document = json.loads(report_json.dump(make_report(verdict=VERDICT)))
    document["report"]["verdict"][field] = "2026-11-20T02:00:00"
    with pytest.raises(StateDamaged, match="without a zone"):
        report_json.load(json.dumps(document).encode())


def test_it_is_shown_with_its_run() -> None:
    shown = "".join(f"{plain(line)}\n" for line in report_lines(make_report(verdict=VERDICT), NOON, 200))
    assert "  2 of 3 photos in the dump of 20 November 2026, " in shown
    assert "  Restorable from this disk: yes, except 1 file: 1 photo is not on the disk.\n" in shown
    assert "    upload/\\xff.jpg: not on the disk\n" in shown


def test_the_history_has_it_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(_kept(tmp_path))
    parser = argparse.ArgumentParser()
    history.add_arguments(parser)
    history.run(parser.parse_args(["--state", str(tmp_path), "--json"]))
    assert json.loads(capsys.readouterr().out)[0]["report"]["verdict"]["restorable"] == "except"


async def _kept(state: Path) -> None:
    book = SqliteHistory(state / "state.db")
    await book.prepare()
    await book.begin(make_report(), PlugIn(boot_id="b", disk_sequence=1, device_number=1))
    await book.finish(make_report(verdict=VERDICT))
