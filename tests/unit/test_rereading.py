"""Which files are read again, for how long, what it means how they read back, and how far that is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.telling import NOON

from immich_usb_backup.config import Verification
from immich_usb_backup.model import Rereading
from immich_usb_backup.policy.manifest import Known
from immich_usb_backup.policy.reading import Found, Old, Reading, judge_copy, judge_old
from immich_usb_backup.policy.rereading import Pace, Turn, pace, portions, turn_of

ONE, TWO, THREE = b"1" * 20, b"2" * 20, b"3" * 20
MONTH = timedelta(days=30)


def _turn(rereading: Rereading = Rereading.TURN, verifying: timedelta | None = None, **settings: object) -> Turn | None:
    began = None if verifying is None else NOON - verifying
    return turn_of(rereading, Verification.model_validate(settings), now=NOON, verifying=began)


def test_a_plug_in_reads_for_ten_minutes_what_was_not_read_for_a_month() -> None:
    assert _turn() == Turn(before=NOON - MONTH, seconds=600.0)
    assert _turn(minutes=3, again_after_days=0) == Turn(before=NOON, seconds=180.0)
    assert _turn(minutes="unlimited") == Turn(before=NOON - MONTH, seconds=None)
    assert _turn(minutes=0) is None
    assert _turn(Rereading.NONE, minutes="unlimited", again_after_days=0) is None


def test_on_demand_there_is_no_limit() -> None:
    assert _turn(Rereading.DUE, minutes=0) == Turn(before=NOON - MONTH, seconds=None)
    assert _turn(Rereading.ALL, minutes=0) == Turn(before=NOON, seconds=None, verifying=NOON)


def test_a_verification_goes_on_unless_it_was_begun_long_ago_or_in_the_future() -> None:
    day = timedelta(days=1)
    assert _turn(Rereading.ALL, day) == Turn(before=NOON - day, seconds=None, verifying=NOON - day)
    assert _turn(Rereading.ALL, 31 * day) == Turn(before=NOON, seconds=None, verifying=NOON)
    assert _turn(Rereading.ALL, -day) == Turn(before=NOON, seconds=None, verifying=NOON)


def test_a_portion_ends_with_enough_bytes_or_files() -> None:
    sizes = [*[1] * 1500, 10**9, 10**9, 1]
    lines = [(b"%d" % n, b"%d" % n, Known(b"a", b"a", size, 0)) for n, size in enumerate(sizes)]
    found = list(portions(lines))
    assert [len(portion) for portion in found] == [1000, 501, 1, 1]
    assert [line for portion in found for line in portion] == lines


@pytest.mark.parametrize(
    ("done", "seconds", "limit", "expected"),
    [
        (0, 0.0, None, Pace(None, None, None)),
        (0, 0.0, 600.0, Pace(None, 600.0, None)),
        (100, 1.0, None, Pace(100.0, 9.0, 10)),
        (100, 1.0, 5.0, Pace(100.0, 4.0, 20)),
        (1000, 10.0, None, Pace(100.0, 0.0, 100)),
        (1100, 11.0, 5.0, Pace(100.0, 0.0, 100)),
    ],
)
def test_the_pace_is_that_of_what_comes_first_the_end_of_the_files_or_of_the_time(
    done: int, seconds: float, limit: float | None, expected: Pace
) -> None:
    assert pace(done=done, total=1000, seconds=seconds, limit=limit) == expected


@pytest.mark.parametrize(
    ("disk", "server", "immich", "reading"),
    [
        (ONE, None, ONE, Reading.PROVEN),
        (ONE, ONE, b"", Reading.PROVEN),
        (ONE, ONE, TWO, Reading.PROVEN),
        (ONE, TWO, b"", Reading.WRONG),
        (ONE, TWO, TWO, Reading.WRONG),
        (ONE, TWO, THREE, Reading.WRONG),
        (None, ONE, ONE, Reading.WRONG),
        ("I/O error", ONE, b"", Reading.WRONG),
        (ONE, None, b"", Reading.GONE),
        (ONE, None, TWO, Reading.GONE),
        (ONE, "I/O error", TWO, Reading.OPEN),
        (None, None, b"", Reading.GONE),
    ],
)
def test_what_a_copy_says(disk: Found, server: Found, immich: bytes, reading: Reading) -> None:
    assert judge_copy(disk, server=server, immich=immich) is reading


@pytest.mark.parametrize(
    ("disk", "server", "old", "reading"),
    [
        (ONE, None, Old(ONE, b""), Reading.PROVEN),
        (ONE, None, Old(b"", ONE), Reading.PROVEN),
        (ONE, None, Old(TWO, ONE), Reading.PROVEN),
        (ONE, ONE, Old(TWO, b""), Reading.WRONG),
        (ONE, ONE, Old(b"", b""), Reading.PROVEN),
        (ONE, TWO, Old(b"", b""), Reading.WRONG),
        (None, None, Old(b"", b""), Reading.WRONG),
        ("I/O error", "I/O error", Old(b"", b""), Reading.WRONG),
        (b"", None, Old(b"", ONE), Reading.WRONG),
        (ONE, None, Old(b"", b""), Reading.OPEN),
        (ONE, "I/O error", Old(b"", b""), Reading.OPEN),
    ],
)
def test_what_an_older_file_says(disk: Found, server: Found, old: Old, reading: Reading) -> None:
    assert judge_old(disk, server=server, old=old) is reading
