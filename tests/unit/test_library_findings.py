"""What the planning, the copying and a walk over the disk mean to the user."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.telling import make_report

from immich_usb_backup.model import Finding, Severity
from immich_usb_backup.policy import library_findings
from immich_usb_backup.policy.deletions import Approval
from immich_usb_backup.policy.disk_state import DiskState
from immich_usb_backup.policy.inventory_findings import of_unfinished, of_walk
from immich_usb_backup.policy.manifest import Known, SourceFile
from immich_usb_backup.policy.plan import FolderPlan, Item, Pair, Present, Rules
from immich_usb_backup.policy.reconcile import Walked
from immich_usb_backup.policy.whole_plan import Plan, Steps, combine, settle

DISK = make_report(name="Blue").disk


def _item(path: bytes, size: int = 5, stored: bytes | None = None) -> Item:
    return Item(path, stored or path, SourceFile(size, 1, 1))


def _present(path: bytes, size: int = 5) -> Present:
    name = path.rpartition(b"/")[2]
    return Present(path, path, Known(name, name, size, 1))


def _planned(**lists: Any) -> tuple[Plan, Steps]:
    plan = combine([FolderPlan(rules=Rules(name=b"upload", source=b"/srv"), **lists)])
    return plan, settle(plan, {}, held=False, doubtful=frozenset(), now=1)


def _of_plan(steps: Steps | None = None, **lists: Any) -> dict[str, Finding]:
    plan, settled = _planned(**lists)
    return {finding.code: finding for finding in library_findings.of_plan(plan, steps or settled)}


def test_a_plan_without_anything_odd_says_nothing() -> None:
    assert _of_plan(new=[_item(b"upload/a")], deleted=[_present(b"upload/b")]) == {}


def test_a_new_file_under_another_name_is_told_once() -> None:
    odd = _item(b"upload/12:30.jpg", stored=b"upload/12_30~x.jpg")
    renamed = [(odd.path, odd.stored)]
    (finding,) = _of_plan(new=[odd], renamed=renamed).values()
    assert (finding.code, finding.severity) == ("stored-under-another-name", Severity.NOTE)
    assert finding.items == ("upload/12:30.jpg: stored as 12_30~x.jpg",)
    assert _of_plan(renamed=renamed) == {}  # it lies there already


@pytest.mark.parametrize(
    ("lists", "code", "severity"),
    [
        ({"specials": [(b"upload/s", "socket")]}, "not-a-file", Severity.NOTE),
        ({"links_outside": [(b"upload/l", b"/etc")]}, "link-outside", Severity.PARTIAL),
        ({"unreadable": [(b"upload/u", "Permission denied")]}, "source-unreadable", Severity.PARTIAL),
        ({"excluded": 3, "excluded_bytes": 9}, "excluded", Severity.NOTE),
        ({"changed": [Pair(_item(b"upload/a", 9), _present(b"upload/a"))]}, "originals-changed", Severity.NOTE),
        ({"changed": [Pair(_item(b"upload/a", 0), _present(b"upload/a"))]}, "originals-changed", Severity.PARTIAL),
    ],
)
def test_what_the_server_s_folders_tell(lists: dict[str, Any], code: str, severity: Severity) -> None:
    (finding,) = _of_plan(**lists).values()
    assert (finding.code, finding.severity) == (code, severity)
    assert finding.count == (3 if code == "excluded" else 1)


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        (Steps(rotten=[b"upload/a"]), "disk-rotten"),
        (Steps(suspicious=[b"upload/a"]), "source-suspicious"),
        (Steps(different=[b"upload/a"]), "content-differs"),
        (Steps(unreadable=[(b"upload/a", "no")]), "source-unreadable"),
        (Steps(waiting=[b"upload/a"]), "deletions-held"),
    ],
)
def test_what_the_contents_tell_is_never_ok(steps: Steps, code: str) -> None:
    (finding,) = _of_plan(steps).values()
    assert (finding.code, finding.severity, finding.count) == (code, Severity.PARTIAL, 1)
    assert finding.items[0].startswith("upload/a")


def test_originals_that_are_held_are_not_said_to_have_been_set_aside() -> None:
    plan, _ = _planned(changed=[Pair(_item(b"upload/a", 9), _present(b"upload/a"))])
    steps = settle(plan, {}, held=True, doubtful=frozenset(), now=1)
    assert library_findings.of_plan(plan, steps) == ()


@pytest.mark.parametrize("too_big", [True, False])
def test_held_deletions_say_how_to_approve_and_name_the_files(too_big: bool) -> None:
    approval = Approval(given=False, too_big=too_big)
    finding = library_findings.held(DISK, {b"upload/b", b"upload/a"}, ["it is too much", "no mark"], approval)
    assert finding.severity is Severity.PARTIAL
    assert (finding.items, finding.count) == (("upload/a", "upload/b"), 2)
    assert "because it is too much; no mark" in finding.message
    assert ("an approval, but for fewer files" in finding.message) is too_big
    assert "approve 'Blue'" in finding.hint
    assert "approve-deletions.txt" in finding.hint


def test_what_the_copying_left_undone() -> None:
    failed, vanished = library_findings.of_copy([(b"upload/a", "no room")], [b"upload/b"])
    assert (failed.severity, failed.items) == (Severity.PARTIAL, ("upload/a: no room",))
    assert (vanished.severity, vanished.items) == (Severity.NOTE, ("upload/b",))
    assert library_findings.of_copy([], []) == ()


def test_what_was_set_aside_and_what_could_not_be() -> None:
    left, moved = library_findings.of_removal(3, [(b"upload/a", "taken")], "deleted/20261121")
    assert (left.code, left.severity) == ("not-moved-aside", Severity.PARTIAL)
    assert "3 files that left the backup went to deleted/20261121" in moved.message
    assert library_findings.of_removal(0, [], "deleted/20261121") == ()


def test_names_from_a_disk_are_shown_harmless() -> None:
    assert "\x1b" not in library_findings.unused_approval(["approve-deletions.\x1b[2J"]).message
    assert "\u202e" not in library_findings.not_configured(["a\u202eb"]).message


def test_the_plan_in_one_line() -> None:
    plan, steps = _planned(new=[_item(b"upload/a", 1500)], deleted=[_present(b"upload/b")], unchanged=41203)
    assert library_findings.plan_line(plan, steps) == "Plan: 1 file to copy (1.5 kB), 1 to set aside, 41,203 unchanged"
    assert library_findings.counts(plan, steps)["new_bytes"] == 1500
    plan, steps = _planned()
    assert library_findings.plan_line(plan, steps) == "Plan: 0 files to copy (0 B), 0 unchanged"


# A walk over the disk, and a run that was not finished ----------------------------------------------------


def test_a_disk_as_expected_says_nothing_and_what_is_not_ours_to_judge_neither() -> None:
    assert of_walk(Walked(files=9, unknown=2)) == ()


def test_what_a_walk_found() -> None:
    walked = Walked(missing=[b"upload/a"], altered=[b"upload/b", b"upload/c"], unreadable=[(b"upload/d", "I/O error")])
    missing, altered, unreadable = of_walk(walked)
    assert (missing.code, missing.severity, missing.items) == ("files-missing", Severity.NOTE, ("upload/a",))
    assert (altered.code, altered.count) == ("files-altered", 2)
    assert (unreadable.code, unreadable.severity) == ("disk-failing", Severity.PARTIAL)


SINCE = datetime(2026, 11, 21, 14, 2, tzinfo=UTC)


def _state(*, writing: bool) -> DiskState:
    return DiskState(server_id="s", server_name="n", generation="", run_id="r", since=SINCE, writing=writing)


def test_a_run_that_was_over_is_not_mentioned() -> None:
    assert of_unfinished(None, None, compared=3, lost=1) == ()
    assert of_unfinished(_state(writing=False), None, compared=3, lost=1) == ()


@pytest.mark.parametrize(
    ("compared", "lost", "said"),
    [
        (0, 0, ": nothing lost"),
        (312, 0, ": 312 files checked again, nothing lost"),
        (1, 1, ": 1 file checked again, 1 of them was not whole and is copied again"),
        (312, 2, ": 312 files checked again, 2 of them were not whole and are copied again"),
    ],
)
def test_an_unfinished_run_says_what_was_checked_and_what_was_not_whole(compared: int, lost: int, said: str) -> None:
    (finding,) = of_unfinished(_state(writing=True), None, compared=compared, lost=lost)
    assert finding.message.startswith("The last backup to this disk, of ")
    assert finding.message.endswith(said)
    assert finding.severity is Severity.NOTE
