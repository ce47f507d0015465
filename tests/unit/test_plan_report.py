"""A plan for people and programs: kinds, counts and names, and the verdicts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.telling import make_report

from immich_usb_backup.model import Finding, Mode, PlanCategory, PlanReport, Severity
from immich_usb_backup.policy import plan_report
from immich_usb_backup.policy.deletions import Approval
from immich_usb_backup.policy.manifest import Known, SourceFile
from immich_usb_backup.policy.plan import FolderPlan, Item, Pair, Present, Rules
from immich_usb_backup.policy.space import RoomVerdict
from immich_usb_backup.policy.whole_plan import combine, settle


def _item(path: bytes, size: int = 5, inode: int = 1) -> Item:
    return Item(path, path, SourceFile(size, 1, inode))


def _present(path: bytes, size: int = 5, inode: int = 0) -> Present:
    name = path.rpartition(b"/")[2]
    return Present(path, path, Known(name, name, size, 1, inode))


def _report(*, held: tuple[str, ...] = (), room: RoomVerdict | None = None, **lists: Any) -> PlanReport:
    plan = combine([FolderPlan(rules=Rules(name=b"upload", source=b"/srv"), **lists)])
    steps = settle(plan, {}, held=bool(held), doubtful=frozenset(), now=1)
    return plan_report.plan_report(
        make_report().disk,
        Mode.QUICK,
        plan=plan,
        steps=steps,
        removals=[present.path for present in plan.deleted],
        held=held,
        approval=Approval(given=False),
        room=room or RoomVerdict(),
        findings=[Finding(code="files-missing", severity=Severity.NOTE, message="looked")],
    )


def _kinds(report: PlanReport) -> dict[str, PlanCategory]:
    return {category.code: category for category in report.categories if category.count}


EVERYTHING: dict[str, Any] = {
    "new": [_item(b"upload/n", 10), _item(b"upload/m\n", 20, inode=9)],
    "changed": [Pair(_item(b"upload/c", 7), _present(b"upload/c", inode=1))],
    "rewritten": [Pair(_item(b"upload/c.xmp", 2), _present(b"upload/c.xmp"))],
    "deleted": [_present(b"upload/d", 40), _present(b"upload/old", 20, inode=9)],
    "renamed": [(b"upload/12:30", b"upload/12_30~x")],
    "specials": [(b"upload/s", "socket")],
    "links": 2,
    "excluded": 3,
    "excluded_bytes": 300,
    "unchanged": 5,
    "unchanged_bytes": 500,
}


def test_each_kind_has_its_count_its_bytes_and_its_names() -> None:
    kinds = _kinds(_report(**EVERYTHING))
    assert {code: (kind.count, kind.bytes, kind.items) for code, kind in kinds.items()} == {
        "new": (1, 10, ("upload/n",)),
        "changed": (2, 9, ("upload/c.xmp", "upload/c")),
        "moved": (1, 20, ("upload/old -> upload/m\\n",)),
        "renamed": (1, 0, ("upload/12:30 -> upload/12_30~x",)),
        "deleted": (1, 40, ("upload/d",)),
        "unrepresentable": (1, 0, ("upload/s",)),
        "links": (2, 0, ()),
        "excluded": (3, 300, ()),
        "unchanged": (5, 500, ()),
    }


def test_what_is_held_is_shown_as_deleted_and_said_to_be_held() -> None:
    report = _report(held=("it is too much",), **EVERYTHING)
    assert _kinds(report)["deleted"].count == 1
    assert "deletions-held" in {finding.code for finding in report.findings}


def test_the_verdicts_are_there() -> None:
    report = _report(room=RoomVerdict(missing=5, reason="5 B are missing"))
    assert [(f.code, f.severity) for f in report.findings] == [
        ("files-missing", Severity.NOTE),
        ("disk-full", Severity.FAILED),
    ]


def test_a_million_names_are_counted_and_some_thousands_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_report, "ITEMS_KEPT", 3)
    new = [_item(b"upload/%d" % number, 2) for number in range(10)]
    (kind,) = _kinds(_report(new=new)).values()
    assert (kind.count, kind.bytes, len(kind.items)) == (10, 20, 3)
