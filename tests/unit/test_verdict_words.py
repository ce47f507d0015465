"""The verdict in words: one sentence that a person understands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.telling import HOSTILE_NAMES

from immich_usb_backup.model import DiskVerdict, Restorable
from immich_usb_backup.policy.text import harmless
from immich_usb_backup.policy.verdict_words import restorable_line, verdict_lines, verdict_sentence

DUMP = datetime(2026, 11, 21, 2).astimezone()
NOON = datetime(2026, 11, 21, 12).astimezone()
MARCH = datetime(2026, 3, 3, 9).astimezone()


def made(**changes: Any) -> DiskVerdict:
    values: dict[str, Any] = {
        "restorable": Restorable.YES,
        "dump": "d",
        "dump_time": DUMP,
        "oldest_proof": MARCH,
        "assets": 41_203,
        "present": 41_203,
        "proven": 41_203,
        "files": 50_000,
        "files_proven": 50_000,
    }
    return DiskVerdict(**{**values, **changes})


def test_the_best_that_can_be_said() -> None:
    expected = "41,203 of 41,203 photos in the dump of 02:00 are on 'Blue'; all re-read since 3 March 2026."
    assert verdict_sentence(made(), "Blue", today=NOON) == expected


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"proven": 12_000, "files_proven": 13_000}, "; 12,000 have been read back so far."),
        ({"proven": 1, "files_proven": 1}, "; 1 has been read back so far."),
        ({"proven": 0, "files_proven": 0, "oldest_proof": None}, "; none has been read back yet."),
        ({"proven": 41_200, "changed": 3}, "; all re-read since 3 March 2026."),
        ({"proven": 41_200, "changed": 3, "files_proven": 49_999}, "; 41,200 have been read back so far."),
    ],
)
def test_how_much_was_read_back(changes: dict[str, Any], end: str) -> None:
    assert verdict_sentence(made(**changes), "Blue", today=NOON).endswith(f"are on 'Blue'{end}")


def test_what_is_missing_shows_in_the_numbers() -> None:
    found = verdict_sentence(made(present=41_200, proven=41_200), "Blue", today=NOON)
    assert found.startswith("41,200 of 41,203 photos in the dump of 02:00 are on 'Blue'; all re-read")
    assert verdict_sentence(made(present=0, proven=0), "Blue", today=NOON).endswith("are on 'Blue'.")
    assert verdict_sentence(made(assets=1, present=1, proven=1), "Blue").startswith("1 of 1 photo in")


def test_on_another_day_the_dump_has_its_date() -> None:
    for today in (None, datetime(2026, 11, 22, 12, tzinfo=UTC)):
        assert "in the dump of 21 November 2026, 02:00 are" in verdict_sentence(made(), "Blue", today=today)


def test_without_a_dump_nothing_is_claimed() -> None:
    found = made(restorable=Restorable.NO, dump="", dump_time=None, assets=0, present=0, proven=0)
    assert verdict_sentence(found, "Blue") == "50,000 files are on 'Blue', and no good database dump came with them."


def test_a_list_that_could_not_be_read_is_no_proof() -> None:
    found = made(restorable=Restorable.NO, assets=0, present=0, proven=0)
    assert (
        verdict_sentence(found, "Blue", today=NOON)
        == "The photos on 'Blue' could not be held against the dump of 02:00."
    )


def test_an_immich_without_photos_of_its_own() -> None:
    found = made(assets=0, present=0, proven=0)
    expected = "The dump of 02:00 names no photos in Immich's own folders."
    assert verdict_sentence(found, "Blue", today=NOON) == expected
    external = made(restorable=Restorable.NO, assets=0, present=0, proven=0, external=5)
    assert verdict_sentence(external, "Blue", today=NOON) == expected


@pytest.mark.parametrize(
    ("restorable", "line"),
    [
        (Restorable.YES, "Restorable from this disk: yes."),
        (Restorable.EXCEPT, "Restorable from this disk: yes, except 1,003 files: why; and why."),
        (Restorable.NO, "Restorable from this disk: no: why; and why."),
    ],
)
def test_whether_it_brings_everything_back(restorable: Restorable, line: str) -> None:
    reasons = () if restorable is Restorable.YES else ("why", "and why")
    assert restorable_line(made(restorable=restorable, reasons=reasons, exception_count=1003)) == line


def test_a_disk_with_nothing_remarkable_has_two_lines() -> None:
    assert len(verdict_lines(made(), "Blue")) == 2


def test_what_is_remarkable_has_a_line() -> None:
    lines = verdict_lines(made(changed=1, rotten_on_server=2, moved=1, unknown=12), "Blue")[2:]
    assert [line.split(" ", 1)[0] for line in lines] == ["1", "2", "1", "12"]
    assert "not as uploaded" in lines[0] or "not as they were uploaded" in lines[0]
    assert "damaged on the server" in lines[1]
    assert "another place" in lines[2]
    assert "not in the dump" in lines[3]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_every_line_is_one_line(name: str) -> None:
    found = made(restorable=Restorable.EXCEPT, reasons=(name,), exceptions=(name,), immich=name)
    for line in verdict_lines(found, name):
        assert harmless(line) == line
