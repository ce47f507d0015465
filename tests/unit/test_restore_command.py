"""What surrounds the restore of the files: the database, how far it is, what it needs, and what its pages say."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support import samples
from tests.support.backup_folder import make_backup

from immich_usb_backup.__main__ import main
from immich_usb_backup.cli import restore as command
from immich_usb_backup.errors import CommandFailed
from immich_usb_backup.model import BACKUP_FOLDER
from immich_usb_backup.policy.restore import NOT_RESTORED, RESTORED_BUT, Kind, Tally, Trouble
from immich_usb_backup.policy.restore_report import Told, progress_line, summary
from immich_usb_backup.restore.database import DatabaseTarget
from immich_usb_backup.restore.progress import Progress

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    samples.make_media_location(tmp_path / "media", photos=3, hostile_names=True)
    make_backup(tmp_path / "disk", tmp_path / "media")
    return tmp_path / "disk"


class Database:
    """Stands in for PostgreSQL: notes what was there when it was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, to: Path) -> None:
        self.to = to
        self.calls: list[tuple[str, bool]] = []
        self.refuses: str = ""
        monkeypatch.setattr(command, "check_target", self.check)
        monkeypatch.setattr(command, "restore_database", self.restore)

    def _note(self, call: str) -> None:
        self.calls.append((call, (self.to / "upload/.immich").exists()))
        if call == self.refuses:
            raise CommandFailed("psql says no", hint="Ask it why.")

    def check(self, dump: Path, target: DatabaseTarget) -> Any:
        assert dump.is_file()
        assert target == DatabaseTarget(docker="immich_postgres")
        self._note("check")
        return SimpleNamespace(lines=("3 assets go into the database 'immich'",))

    def restore(self, plan: Any, say: Callable[[str], None]) -> Any:
        say("1 MB is sent")
        self._note("restore")
        return SimpleNamespace(lines=("3 assets are in the database",))


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    return Database(monkeypatch, tmp_path / "restored")


def restore(disk: Path, *more: str) -> int:
    to = ("--to", str(disk.parent / "restored"))
    return main(["restore", "--from", str(disk), *to, "--docker", "immich_postgres", *more])


def test_the_database_is_asked_first_and_restored_last(
    disk: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(disk) == 0
    assert database.calls == [("check", False), ("restore", True)]
    said = capsys.readouterr().out
    assert "    3 assets go into the database 'immich'\n" in said
    assert "1 MB is sent\n" in said
    assert "Database:\n    3 assets are in the database\n" in said
    assert "--only database" not in said


def test_a_database_that_does_not_fit_leaves_everything_as_it_was(
    disk: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.refuses = "check"
    assert restore(disk) == 69
    assert not database.to.exists()
    assert "psql says no" in capsys.readouterr().err


def test_a_database_that_fails_leaves_the_files_and_says_how_to_go_on(
    disk: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.refuses = "restore"
    assert restore(disk) == 1
    said = capsys.readouterr().out
    assert "Stopped: the files are restored, the database is not: psql says no. Ask it why." in said
    assert "run the same command with --only database" in said
    assert (database.to / "upload/.immich").exists()


def test_a_dry_run_asks_the_database_and_leaves_it_alone(
    disk: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(disk, "--dry-run") == 0
    assert restore(disk, "--dry-run", "--only", "database") == 0
    assert database.calls == [("check", False), ("check", False)]
    assert capsys.readouterr().out.endswith("Nothing was written.\n")


def test_only_the_database_touches_no_files(disk: Path, database: Database) -> None:
    assert main(["restore", "--from", str(disk), "--only", "database", "--docker", "immich_postgres"]) == 0
    assert database.calls == [("check", False), ("restore", False)]
    assert not database.to.exists()


def test_without_a_whole_dump_a_database_cannot_be_restored(
    disk: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    for dump in (disk / BACKUP_FOLDER / "database").iterdir():
        dump.unlink()
    assert restore(disk) == 69
    assert not database.to.exists()
    assert "leave --database and --docker out" in capsys.readouterr().err


# How far it is --------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO(), 1), (Terminal(), 3)])
def test_how_far_it_is_is_told_now_and_then(stream: io.StringIO, shown: int) -> None:
    seconds = iter((0.0, 0.1, 1.0, 2.0, 31.0))
    progress = Progress(stream, lambda: next(seconds), total=4_000_000, files=4)
    for _ in range(4):
        progress.count(1_000_000, 1)
    assert stream.getvalue().count(" of 4.0 MB") == shown
    assert "4.0 MB of 4.0 MB (100 %), 4 of 4 files" in stream.getvalue()
    assert ("\n" in stream.getvalue()) is not stream.isatty()


def test_the_rate_and_the_rest_are_told() -> None:
    line = progress_line(done=1_200_000_000, total=3_000_000_000, files=410, of_files=1025, seconds=40)
    assert line == "1.2 GB of 3.0 GB (40 %), 410 of 1,025 files, 30.0 MB/s, about 1 min 0 s left"
    assert progress_line(done=0, total=0, files=0, of_files=0, seconds=9) == "0 B of 0 B, 0 of 0 files"


# What it says ---------------------------------------------------------------------------------------------


def test_many_names_are_cut_unless_all_are_asked_for() -> None:
    tally = Tally()
    for number in range(30):
        tally.note(Trouble(Kind.MISSING, b"upload/%d.jpg" % number))
    short = "\n".join(summary(tally, Told(to="/x", dry_run=False)))
    assert short.count(".jpg") == 20
    assert "30 files: in the backup's list, but not on the disk" in short
    assert "and 10 more (--all shows them)" in short
    assert "\n".join(summary(tally, Told(to="/x", dry_run=False, everything=True))).count(".jpg") == 30


def test_it_needs_nothing_but_python(disk: Path, tmp_path: Path) -> None:
    """On the machine of whoever finds the disk: a checkout, and no packages."""
    program = [
        sys.executable,
        "-S",
        "-m",
        "immich_usb_backup",
        "restore",
        "--from",
        str(disk),
        "--to",
        str(tmp_path / "new"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "daemon"), "HOME": "/nonexistent"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "new/upload/.immich").exists()


def test_the_page_lists_every_changed_name(disk: Path) -> None:
    page = (CHECKOUT / "docs/how-to/restore-by-hand.md").read_text()
    program = page.partition("<<'LIST'\n")[2].partition("\nLIST\n")[0]
    manifest = str(disk / BACKUP_FOLDER / "manifest.jsonl.gz")
    done = subprocess.run(
        [sys.executable, "-", manifest], input=program.encode(), capture_output=True, timeout=60, check=True
    )
    pairs = [line.split("\t") for line in done.stdout.decode().splitlines()]
    library = "library/admin/2024/f 1.8."
    assert {f"{library}/12:30.jpg", f"{library}/trailing."} <= {server for _, server in pairs}
    for stored, server in pairs:
        assert (disk / BACKUP_FOLDER / stored).read_bytes() == (disk.parent / "media" / server).read_bytes()


def test_the_page_says_every_kind_of_trouble() -> None:
    page = (CHECKOUT / "docs/how-to/restore.md").read_text()
    assert {*NOT_RESTORED, *RESTORED_BUT} == set(Kind)
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")]
    for text in (*NOT_RESTORED.values(), *RESTORED_BUT.values()):
        words = re.split(r"[:(]| of the", text)[0].strip()
        assert any(words.startswith(row) or row.startswith(words) for row in rows), text
