"""What is told of one disk."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.support.fakes import seen_stick
from tests.support.telling import NOON, make_report

from immich_usb_backup.model import DiskVerdict, Finding, KnownDisk, Outcome, Restorable, Severity
from immich_usb_backup.policy.disk_facts import DiskState, facts_of, held_deletions, strip_of

REPORT = make_report()
KNOWN = KnownDisk(disk=REPORT.disk, last=REPORT, first=NOON, good=NOON)


def test_a_disk_that_is_here_is_told_as_it_is_now_and_by_the_name_it_was_backed_up_under() -> None:
    seen = replace(seen_stick(label="NEW"), uuid=REPORT.disk.uuid, model="Other")
    facts = facts_of(KNOWN, seen, state=DiskState.IDLE, now=NOON)
    assert (facts.name, facts.label, facts.model, facts.device) == ("Blue", "NEW", "Other", seen.device_node)
    absent = facts_of(KNOWN, None, now=NOON)
    assert (absent.state, absent.device, absent.label) == (DiskState.ABSENT, "", "Blue")
    new = facts_of(None, seen_stick(label=" "), now=NOON)
    assert (new.name, new.last, new.good, new.verdict_line) == (new.uuid, None, None, "")


def test_a_disk_is_late_from_the_moment_that_it_is_due() -> None:
    late = [facts_of(KNOWN, None, due=NOON + timedelta(seconds=s), now=NOON).late for s in (-1, 0, 1)]
    assert late == [True, True, False]
    assert not facts_of(KNOWN, None, due=None, now=NOON).late


def test_held_deletions_are_counted_once() -> None:
    held = Finding(code="deletions-held", severity=Severity.PARTIAL, message="", hint="approve", count=7)
    waiting = replace(held, hint="", count=3)
    assert held_deletions(replace(REPORT, findings=(waiting, held))) == 7
    assert facts_of(replace(KNOWN, last=replace(REPORT, findings=(held,))), None, now=NOON).held_deletions == 7


def test_the_strip_has_a_letter_for_each_outcome() -> None:
    assert strip_of(Outcome) == "opfi"


def test_the_verdict_is_one_line_that_says_whether_everything_comes_back() -> None:
    verdict = DiskVerdict(restorable=Restorable.YES, dump="d", dump_time=NOON, assets=2, present=2)
    line = facts_of(replace(KNOWN, verdict=verdict), None, now=NOON).verdict_line
    assert "2 of 2 photos" in line
    assert line.endswith("Restorable from this disk: yes.")
    assert "\n" not in line
