"""What a verdict makes loud, and that a lasting fact is loud only once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from tests.support.telling import make_report

from immich_usb_backup.model import DiskVerdict, Finding, Restorable, RunReport, Severity
from immich_usb_backup.policy.external import Coverage, Names
from immich_usb_backup.policy.verdict import Tally, verdict
from immich_usb_backup.policy.verdict_findings import of_rotten, of_verdict

NOTE, PARTIAL = Severity.NOTE, Severity.PARTIAL


def names(*items: str, count: int = 0) -> Names:
    return Names(count or len(items), list(items))


def said(
    before: RunReport | None = None,
    *,
    dump: str = "1",
    gone: Iterable[str] = (),
    outside: Coverage | None = None,
    container: bool = False,
    **kinds: Any,
) -> tuple[list[Finding], RunReport]:
    """The findings of a run, and its report."""
    tally = Tally(gone=names(*gone), **kinds)
    blank = DiskVerdict(restorable=Restorable.NO, dump=dump)
    found = verdict(tally, outside or Coverage(), blank)
    findings = of_verdict(tally, outside or Coverage(), found, before, container=container)
    return list(findings), replace(make_report(findings=tuple(findings)), verdict=found)


def loudness(findings: Iterable[Finding]) -> list[tuple[str, Severity, int]]:
    return [(finding.code, finding.severity, finding.count) for finding in findings]


def test_a_disk_that_has_everything_is_not_talked_about() -> None:
    assert said()[0] == []


def test_what_the_server_has_and_the_disk_has_not_is_said_each_time() -> None:
    first, report = said(absent=names("upload/1.jpg"))
    again, _ = said(report, absent=names("upload/1.jpg"))
    assert loudness(first) == loudness(again) == [("photos-missing", PARTIAL, 1)]
    assert first[0].items == ("upload/1.jpg",)
    assert "1 photo of the database dump is not on the disk, though the server has it" in first[0].message
    assert first[0].hint


def test_what_a_pattern_leaves_out_was_the_users_word() -> None:
    assert said(excluded=names("upload/1.mov"))[0] == []


def test_what_stays_damaged_on_the_disk_is_said_each_time() -> None:
    (finding,) = of_rotten({b"upload/\n.jpg"})
    assert (finding.code, finding.severity, finding.items) == ("rotten-on-disk", PARTIAL, ("upload/\\n.jpg",))
    assert of_rotten(set()) == ()


def test_photos_that_were_deleted_after_the_dump_are_a_note_and_then_forgotten() -> None:
    first, report = said(gone=["a"], dump="1")
    assert loudness(first) == [("photos-gone", NOTE, 1)]
    again, report = said(report, gone=["a"], dump="1")
    assert loudness(again) == [("photos-gone", NOTE, 1)], "the same dump tells nothing new"
    assert said(report, dump="2")[0] == []


def test_photos_that_a_later_dump_still_names_are_lost_and_that_is_loud_once() -> None:
    _, report = said(gone=["a"], dump="1")
    second, report = said(report, gone=["a"], dump="2")
    assert loudness(second) == [("photos-lost", PARTIAL, 1)]
    third, report = said(report, gone=["a"], dump="3")
    assert loudness(third) == [("photos-lost", NOTE, 1)]
    fourth, report = said(report, gone=["a", "b"], dump="3")
    assert loudness(fourth) == [("photos-lost", NOTE, 1), ("photos-gone", NOTE, 1)]
    assert [finding.items for finding in fourth] == [("a",), ("b",)]
    fifth, _ = said(report, gone=["a", "b"], dump="4")
    assert loudness(fifth) == [("photos-lost", PARTIAL, 2)], "b is news"


def test_more_than_are_named_are_counted_all_the_same() -> None:
    _, report = said(gone=["a", "b"], dump="1")
    tally = Tally(gone=names("a", "b", count=1000))
    found = verdict(tally, Coverage(), DiskVerdict(restorable=Restorable.NO, dump="2"))
    findings = of_verdict(tally, Coverage(), found, report, container=False)
    assert loudness(findings) == [("photos-lost", PARTIAL, 1000)]


def outside(*lines: str, missing: int = 7) -> Coverage:
    return Coverage(assets=9, missing=names("/p/1.jpg", count=missing), lines=lines)


def test_an_external_library_is_loud_once_and_again_when_it_is_another() -> None:
    first, report = said(outside=outside('extra.p = "/p"'))
    assert loudness(first) == [("external-not-covered", PARTIAL, 1)]
    assert first[0].items == ('extra.p = "/p"',)
    assert "7 photos of external libraries are not on the disk" in first[0].message
    more, report = said(report, outside=outside('extra.p = "/p"', missing=100))
    assert loudness(more) == [("external-not-covered", NOTE, 1)], "it grows, and is the same folder"
    other, _ = said(report, outside=outside('extra.p = "/p"', 'extra.q = "/q"'))
    assert loudness(other) == [("external-not-covered", PARTIAL, 2)]


def test_a_configured_folder_that_lacks_files_needs_no_line() -> None:
    first, report = said(outside=outside())
    assert loudness(first) == [("external-not-covered", PARTIAL, 7)]
    assert first[0].items == ("/p/1.jpg",)
    assert loudness(said(report, outside=outside())[0]) == [("external-not-covered", NOTE, 7)]


@pytest.mark.parametrize("container", [True, False])
def test_a_containers_path_is_not_given_for_the_servers(container: bool) -> None:
    (finding,), _ = said(outside=outside('extra.p = "/p"'), container=container)
    assert ("docker-compose.yml" in finding.hint) is container


def test_changed_contents_are_named_when_they_become_more() -> None:
    first, report = said(changed=names("a", "b"))
    assert loudness(first) == [("changed-after-upload", NOTE, 2)]
    same, report = said(report, changed=names("a", "b"))
    assert same == []
    more, _ = said(report, changed=names("a", "b", "c"))
    assert loudness(more) == [("changed-after-upload", NOTE, 3)]
