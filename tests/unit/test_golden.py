"""What the commands show, as files to look at: tests/golden, at 80 and at 40 columns.

After a change that is meant: IMMICH_USB_BACKUP_RENEW=1 .venv/bin/python -m pytest tests/unit/test_golden.py
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from tests.support import told
from tests.support.telling import HOSTILE_NAMES, hostile_report
from tests.support.told import NOW

from immich_usb_backup.model import Outcome
from immich_usb_backup.policy.cells import Line, cells, plain
from immich_usb_backup.policy.progress_words import live_lines
from immich_usb_backup.policy.run_words import history_lines, report_lines, view_lines
from immich_usb_backup.policy.status_words import status_lines

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RENEW = "IMMICH_USB_BACKUP_RENEW"

SAFE = told.disk()
LATE = told.disk("Green", days=41, history="oooooooop", last_outcome="partial", size=64_000_000_000)
NEW = told.disk("Weekend", days=None, state="idle", device="/dev/sdb1")
WIDE = told.disk(
    "家族のバックアップ用ディスク", days=0.1, state="idle", device="/dev/sdc1", history="ooiopfo", held_deletions=412
)
STRANGE = told.disk("STICK", days=None, state="idle", device="/dev/sdd1", known=False, last_outcome="", history="")
RIGHT_TO_LEFT = told.disk("\u202eגיבוי\n", days=12, restorable="except")

SCREENS: dict[str, Callable[[int], Iterable[Line]]] = {
    "status-nothing-yet": lambda columns: status_lines([], NOW, columns),
    "status-unmarked": lambda columns: status_lines([STRANGE], NOW, columns),
    "status-safe": lambda columns: status_lines([SAFE], NOW, columns),
    "status-several": lambda columns: status_lines([SAFE, LATE, NEW, WIDE, RIGHT_TO_LEFT, STRANGE], NOW, columns),
    "status-not-safe": lambda columns: status_lines([LATE], NOW, columns),
    "status-never-good": lambda columns: status_lines([NEW], NOW, columns),
    "live-copying": lambda columns: live_lines(
        told.going(), columns, current="library/admin/2024/家族の写真/2024-05-01 写真 01.jpg"
    ),
    "live-flushing": lambda columns: live_lines(
        told.going(stage="flush", done=10**9, total=4 * 10**9, percent=25, rate=None, seconds_left=None), columns
    ),
    "live-planning": lambda columns: live_lines(
        told.going(stage="plan", done=0, total=0, percent=None, rate=None, seconds_left=None), columns
    ),
    "history": lambda columns: history_lines(told.runs(), NOW, columns),
    "history-empty": lambda columns: history_lines([], NOW, columns),
    "show-failed": lambda columns: report_lines(told.failed_report(), NOW, columns),
    "show-partial": lambda columns: report_lines(
        told.failed_report(outcome=Outcome.PARTIAL, findings=told.failed_report().findings[:2], stages=()), NOW, columns
    ),
    "show-without-rights": lambda columns: view_lines(told.runs()[1], NOW, columns),
}


@pytest.fixture(autouse=True)
def local_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_as_it_was_looked_at(name: str, columns: int) -> None:
    shown = "".join(f"{plain(line)}\n" for line in SCREENS[name](columns))
    path = GOLDEN / f"{name}-{columns}.txt"
    if os.environ.get(RENEW):
        path.write_text(shown)
    assert shown == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {
        f"{name}-{columns}.txt" for name in SCREENS for columns in (80, 40)
    }


@pytest.mark.parametrize("columns", [20, 40, 71, 72, 80, 132])
@pytest.mark.parametrize("name", SCREENS)
def test_no_line_is_broken_by_the_terminal(name: str, columns: int) -> None:
    assert [line for line in map(plain, SCREENS[name](columns)) if cells(line) > columns] == []


@pytest.mark.parametrize("columns", [20, 80])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_reaches_the_terminal_as_it_is(name: str, columns: int) -> None:
    disk = told.disk(name, uuid=name, label=name, verdict=name, reasons=(name,), eligible=False, device=name, late=True)
    run = told.runs()[1]
    hostile = type(run)(run=name, disk=name, name=name, headline=name, body=name, todo=name, started=NOW)
    lines = [
        *status_lines([disk], NOW, columns),
        *live_lines(told.going(disk=name, headline=name, stage=name, line=name), columns, current=name),
        *live_lines(told.going(disk=name, headline=""), columns, current=name),
        *history_lines([hostile], NOW, columns),
        *view_lines(hostile, NOW, columns),
        *report_lines(hostile_report(name), NOW, columns),
    ]
    texts = [plain(line) for line in lines]
    assert [text for text in texts if not text.isprintable() or cells(text) > columns] == []
