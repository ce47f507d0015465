"""A plan as JSON, for D-Bus and for programs."""

from __future__ import annotations

import json
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from immich_usb_backup.adapters.report_json import clean
from immich_usb_backup.errors import BackupError
from immich_usb_backup.model import PlanReport

VERSION = 1
"""Grows when an older reader would misunderstand; it ignores what it does not know."""

LONGEST = 8_000_000
"""Characters. A bus daemon hangs up on who sends more than 32 MiB in one message; paths are what makes a plan long."""

_ADAPTER: TypeAdapter[PlanReport] = TypeAdapter(PlanReport)


def dump(report: PlanReport, *, longest: int = LONGEST) -> str:
    """The report as one JSON document in ASCII. One that is too long loses items, not counts."""
    document = _dump(report)
    while len(document) > longest and any(category.items for category in report.categories):
        report = _with_half_the_items(report)
        document = _dump(report)
    return document


def _dump(report: PlanReport) -> str:
    return json.dumps({"version": VERSION, **clean(_ADAPTER.dump_python(report, mode="json"))}, separators=(",", ":"))


def _with_half_the_items(report: PlanReport) -> PlanReport:
    categories = (replace(one, items=one.items[: len(one.items) // 2]) for one in report.categories)
    return replace(report, categories=tuple(categories))


def load(document: str) -> PlanReport:
    """The report in a JSON document. Raises ``BackupError`` for anything else, and for one of a newer version."""
    try:
        values = from_json(document)
        if isinstance(values, dict) and values.pop("version", None) == VERSION:
            return _ADAPTER.validate_python(values)
    except (ValueError, ValidationError) as error:
        raise _misunderstood() from error
    raise _misunderstood()


def _misunderstood() -> BackupError:
    return BackupError(
        "The service answered with something that is no plan that this version knows",
        hint="Restart the service, so that it has this version: sudo systemctl restart immich-usb-backup",
    )
