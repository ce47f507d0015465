"""When photos are called safe, how ages are said, and values from the bus that are not what they should be."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.told import NOW, disk, going

from immich_usb_backup.policy.ages import ago, ahead, span
from immich_usb_backup.policy.cells import plain
from immich_usb_backup.policy.progress_words import Speed, live_lines
from immich_usb_backup.policy.status_words import command, legend, safety, strip
from immich_usb_backup.policy.views import DiskView, disk_view, finished_view, run_view
from immich_usb_backup.policy.views import going as going_view

BLUE, LATE, NEVER = disk(), disk("Green", days=41), disk("Red", days=None)
HERE: dict[str, Any] = {"device": "/dev/sdb1", "state": "idle"}


@pytest.mark.parametrize(
    ("disks", "safe", "words"),
    [
        ([BLUE], True, "Your photos are safe: the last good backup is on 'Blue', 3 days ago."),
        ([LATE, NEVER, BLUE], True, "Your photos are safe: the last good backup is on 'Blue', 3 days ago."),
        ([disk("Old", days=20), BLUE], True, "Your photos are safe: the last good backup is on 'Blue', 3 days ago."),
        ([disk(restorable="except")], True, "Your photos are safe, but not all of them: "),
        ([disk(restorable="")], True, "Your photos are safe: "),
        ([disk(last_outcome="failed")], True, "Your photos are safe: "),
        ([disk(restorable="no")], False, "Your photos are not safe: 'Blue' would not bring them back."),
        (
            [disk(restorable="no"), disk("Old", days=20)],
            True,
            "Your photos are safe: the last good backup is on 'Old', 20 days ago.",
        ),
        ([LATE, NEVER], False, "Your photos are not safe: the last good backup is 41 days old, on 'Green'."),
        ([NEVER], False, "Your photos are not safe: no backup has ended well yet."),
        ([], False, "Your photos are not safe: there has been no backup yet."),
    ],
)
def test_the_first_sentence(disks: list[DiskView], safe: bool, words: str) -> None:
    judged = safety(disks, NOW)
    assert judged.safe is safe
    assert judged.sentence.startswith(words)
    assert (judged.todo is None) is safe


@pytest.mark.parametrize(
    ("disks", "todo"),
    [
        ([LATE], "Plug a backup disk in."),
        ([replace(LATE, **HERE)], "sudo immich-usb-backup backup Green"),
        ([replace(LATE, **HERE, eligible=False)], "Plug a backup disk in."),
        ([replace(LATE, **HERE, trusted=False)], "Plug a backup disk in."),
        ([replace(NEVER, state="running", device="/dev/sdb1")], "leave the disk plugged in"),
        ([disk(restorable="no")], "immich-usb-backup show Blue"),
        ([], "a disk that carries the marker"),
    ],
)
def test_what_to_do_when_they_are_not(disks: list[DiskView], todo: str) -> None:
    note = safety(disks, NOW).todo
    assert note is not None
    assert todo in f"{note.text} {note.command}"


def test_a_command_can_be_typed_whatever_the_disk_is_called() -> None:
    assert command("show", disk("My Disk")) == "immich-usb-backup show 'My Disk'"
    assert command("show", disk("a'; rm -rf /")) == "immich-usb-backup show 'a'\"'\"'; rm -rf /'"
    assert command("show", disk("Bl\u202eue", uuid="12-AB")) == "immich-usb-backup show 12-AB"
    assert command("show", disk("--all", uuid="12-AB")) == "immich-usb-backup show 12-AB"


def test_the_strip_keeps_the_newest() -> None:
    assert plain(strip("oopfi")) == "||!X/"
    assert plain(strip("ooooof", 3)) == "||X"
    assert plain(strip("o?")) == "|?"
    assert list(legend(["ooo", ""], 80)) == []
    assert [plain(line) for line in legend(["oof"], 80)] == ["| good, X failed"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 minutes"),
        (119 * 60, "119 minutes"),
        (47 * 3600, "47 hours"),
        (41.9 * 86_400, "41 days"),
        (100 * 86_400, "3 months"),
        (800 * 86_400, "2 years"),
        (86_400 * 365, "12 months"),
    ],
)
def test_a_span_has_one_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_ages() -> None:
    assert ago(None, NOW) == "never"
    assert ago(NOW - timedelta(seconds=59), NOW) == ago(NOW + timedelta(days=1), NOW) == "just now"
    assert ago(NOW - timedelta(minutes=1), NOW) == "1 minute ago"
    assert ahead(NOW + timedelta(days=30, seconds=-3), NOW) == "in 30 days"
    assert ahead(NOW - timedelta(days=1), NOW) == "now"


VALUES = st.dictionaries(
    st.sampled_from(
        ["Uuid", "Name", "Size", "LastGood", "Due", "Reasons", "Late", "run", "percent", "rate", "stage", "Started"]
    ),
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.lists(st.text())
    | st.floats(allow_nan=False, allow_infinity=False),
)


@given(VALUES)
def test_nothing_that_the_bus_says_breaks_a_command(values: dict[str, Any]) -> None:
    for view in (disk_view, run_view, finished_view, going_view):
        view(values)
    if (now := going_view(values)) is not None:
        list(live_lines(now, 40))
    safety([disk_view(values)], NOW)


def test_a_service_that_does_not_say_how_fast_it_is_is_measured() -> None:
    now, speed = going(rate=None, seconds_left=None, done=0, total=4000), Speed()
    for second in range(5):
        now = replace(now, done=100 * second)
        speed = speed.and_then(now, float(second))
    assert (speed.of(now).rate, speed.of(now).seconds_left) == (100.0, 36.0)
    assert speed.of(replace(now, rate=7.0)).rate == 7.0
    anew = speed.and_then(replace(now, stage="library"), 6.0)
    assert anew.of(now).rate is None
