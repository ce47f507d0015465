"""A plan as JSON: the same after the way through D-Bus, never too long for it, and never believed blindly."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.telling import HOSTILE_NAMES, make_report

from immich_usb_backup.adapters import plan_json
from immich_usb_backup.errors import BackupError
from immich_usb_backup.model import Finding, Mode, PlanCategory, PlanReport, Severity

HELD = Finding(code="deletions-held", severity=Severity.PARTIAL, message="held", hint="approve", items=("a",), count=9)


def plan(*categories: PlanCategory, name: str = "Blue") -> PlanReport:
    disk = dataclasses.replace(make_report(name=name).disk, label=name)
    return PlanReport(disk=disk, mode=Mode.VERIFY, categories=categories, findings=(HELD,))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_a_plan_is_the_same_after_the_way(items: list[str]) -> None:
    there = plan(PlanCategory(code="new", count=7, bytes=34, items=tuple(items)))
    document = plan_json.dump(there)
    assert document.isascii()
    assert "\0" not in document
    assert plan_json.load(document) == there


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_text_that_every_reader_takes(name: str) -> None:
    document = plan_json.dump(plan(name=name))
    assert json.loads(document)["disk"]["name"].encode()


def test_one_that_is_too_long_loses_items_and_no_counts() -> None:
    many = plan(*(PlanCategory(code=code, count=5000, items=("x" * 200,) * 4000) for code in ("new", "deleted")))
    document = plan_json.dump(many, longest=100_000)
    assert len(document) <= 100_000
    short = plan_json.load(document)
    assert [category.count for category in short.categories] == [5000, 5000]
    assert all(category.items for category in short.categories)
    assert short.findings == many.findings


def test_the_longest_fits_through_a_bus_daemon() -> None:
    assert plan_json.LONGEST < 32 * 1024 * 1024


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"version":2}', '{"version":1,"disk":{}}', "[" * 9999])
def test_anything_else_is_an_error_and_no_bug(document: str) -> None:
    with pytest.raises(BackupError):
        plan_json.load(document)


def test_what_a_later_version_adds_is_ignored() -> None:
    values = json.loads(plan_json.dump(plan()))
    assert plan_json.load(json.dumps(values | {"more": 1})) == plan()
