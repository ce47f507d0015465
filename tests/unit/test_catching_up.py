"""What somebody is told who comes back, on values: which outcomes, in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.telling import HOSTILE_NAMES, NOON

from immich_usb_backup.model import Outcome
from immich_usb_backup.policy import note_words, notes
from immich_usb_backup.policy.catching_up import missed
from immich_usb_backup.policy.note_words import LABELS, PENDING, Action

DAY = 86400
NOW = int(NOON.timestamp())
BLUE = {"Uuid": "B", "Name": "Blue", "Device": "/dev/sdb1"}


def past(run: str, disk: str = "B", *, days: float = 1, outcome: str = "ok", **more: Any) -> dict[str, Any]:
    ended = NOW - int(days * DAY)
    run_values = {"Run": run, "Disk": disk, "Name": "Blue" if disk == "B" else "Green", "Started": ended - 60}
    return {**run_values, "Ended": ended, "Outcome": outcome, "SafeToUnplug": True, **more}


def told(*runs: dict[str, Any], **options: Any) -> list[str]:
    values: dict[str, Any] = {"disks": [BLUE], "seen": {}, "wanted": tuple(Outcome), "now": NOON} | options
    return [str(one["headline"]) for one in missed(runs, **values)]


@pytest.mark.parametrize(
    ("outcome", "headline"),
    [
        ("ok", "'Blue' was backed up while you were away: safe to unplug"),
        ("partial", "'Blue' was backed up while you were away, but not everything: safe to unplug"),
        ("failed", "Backup to 'Blue' failed while you were away: safe to unplug"),
        ("interrupted", "Backup to 'Blue' was interrupted while you were away: safe to unplug"),
    ],
)
def test_how_it_ended_and_whether_the_disk_may_go(outcome: str, headline: str) -> None:
    assert told(past("r1", outcome=outcome)) == [headline]


def test_a_disk_that_is_not_here_needs_no_leave_to_go() -> None:
    not_here = {**BLUE, "Device": ""}
    mounted = past("r1", outcome="failed", SafeToUnplug=False)
    assert told(mounted, disks=[not_here]) == told(mounted, disks=[]) == ["Backup to 'Blue' failed while you were away"]
    (values,) = missed([mounted], [not_here], seen={}, wanted=tuple(Outcome), now=NOON)
    assert notes.finished(values).actions == ()


def test_a_disk_that_may_still_be_mounted_is_not_called_safe() -> None:
    mounted = past("r1", outcome="failed", SafeToUnplug=False)
    (headline,) = told(mounted)
    assert headline.endswith("it may still be mounted, do not just unplug it")


def test_a_disk_that_was_pulled_out_and_is_here_again_was_not_left_mounted() -> None:
    pulled = past("r1", outcome="interrupted", SafeToUnplug=False, Findings=["disk-gone"])
    assert told(pulled) == ["Backup to 'Blue' was interrupted while you were away"]


def test_only_the_newest_of_each_disk_the_oldest_of_them_first() -> None:
    runs = (past("r1", days=3, outcome="failed"), past("r2", days=2), past("g1", "G", days=1))
    expected = ["'Blue' was backed up while you were away: safe to unplug", "'Green' was backed up while you were away"]
    assert told(*runs) == told(*reversed(runs)) == expected


def test_what_was_shown_is_not_told_again_nor_what_was_before_it() -> None:
    runs = (past("r1", days=3, outcome="failed"), past("r2", days=2))
    assert told(*runs, seen={"B": "r2"}) == []
    assert told(*runs, seen={"B": "r1"}) == ["'Blue' was backed up while you were away: safe to unplug"]


def test_old_news_is_for_the_history() -> None:
    assert told(past("r1", days=13.9))
    assert told(past("r1", days=14.1)) == []


def test_a_run_that_goes_on_supersedes_what_was_before() -> None:
    assert told(past("r1"), past("r2", days=0, outcome="") | {"Ended": 0}) == []


def test_an_outcome_that_is_not_wanted_hides_no_older_one() -> None:
    """An older failure that a newer good run has mended is no news."""
    assert told(past("r1", days=2, outcome="failed"), past("r2"), wanted=(Outcome.FAILED,)) == []


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_harmless(name: str) -> None:
    (values,) = missed([past("r1", Name=name)], [], seen={}, wanted=tuple(Outcome), now=NOON)
    note = notes.finished(values)
    assert note.summary.isprintable()
    assert len(note.summary) < 300
    for action in Action:
        assert note_words.done(action, name, 3).isprintable()


_VALUES = st.dictionaries(
    st.sampled_from(
        ["Run", "Disk", "Name", "Started", "Ended", "Outcome", "SafeToUnplug", "Findings", "Uuid", "Device"]
    ),
    st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.lists(st.integers()), st.just("ok"), st.just(NOW)),
)


@given(st.lists(_VALUES, max_size=4), st.lists(_VALUES, max_size=2))
def test_values_of_any_kind_do_no_harm(runs: list[dict[str, Any]], disks: list[dict[str, Any]]) -> None:
    for values in missed(runs, disks, seen={}, wanted=tuple(Outcome), now=NOON):
        assert notes.finished(values).summary


def test_every_button_has_its_words() -> None:
    assert set(LABELS) == set(PENDING) == set(Action)
    assert note_words.done(Action.APPROVE, "Blue", 0) == "No deletions are held any more."
    assert note_words.done(Action.APPROVE, "Blue", 1).startswith("1 deletion approved")


def test_a_long_story_is_cut_with_the_answer_on_top() -> None:
    note = notes.finished({"headline": "x", "body": "\n".join(f"line {number}" for number in range(50))})
    answered = notes.with_answer(note, "Not done.", without=frozenset())
    assert answered.body.split("\n")[0] == "Not done."
    assert len(answered.body.split("\n")) <= 13
