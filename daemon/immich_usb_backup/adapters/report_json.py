"""A run report as JSON, for the history and the outbox: versioned, and always valid UTF-8."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.model import RunReport
from immich_usb_backup.policy.text import printable

VERSION = 1
"""Grows when an older reader would misunderstand; it ignores fields that it does not know."""

_ADAPTER: TypeAdapter[RunReport] = TypeAdapter(RunReport)
_SURROGATE = re.compile("[\ud800-\udfff]")


def dump(report: RunReport) -> bytes:
    """The report as one JSON document. Bytes of a file name that are no text are kept as ``\\xNN``."""
    return json.dumps({"version": VERSION, "report": plain(report)}, ensure_ascii=False, separators=(",", ":")).encode()


def plain(report: RunReport) -> Any:
    """The report as JSON's own types."""
    return clean(_ADAPTER.dump_python(report, mode="json"))


def load(content: bytes) -> RunReport:
    """The report in a JSON document. Raises ``StateDamaged`` for anything else, and for one of a newer version."""
    try:
        document = from_json(content)
    except ValueError as error:
        raise StateDamaged(f"it is not JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("version"), int):
        raise StateDamaged("it is not a run report")
    if document["version"] > VERSION:
        raise StateDamaged(f"it was written by a newer version (format {document['version']}, known is {VERSION})")
    return report_of(document.get("report"))


def report_of(value: object) -> RunReport:
    """The report that ``plain`` made. Raises ``StateDamaged``."""
    try:
        report = _ADAPTER.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StateDamaged(f"it is not a run report ({where}: {first['msg']})") from error
    if any(time.tzinfo is None for time in _times(report)):
        raise StateDamaged("it is not a run report (a time without a zone)")
    return report


def _times(report: RunReport) -> Iterator[datetime]:
    verdict = report.verdict
    of_verdict = (verdict.dump_time, verdict.oldest_proof) if verdict is not None else ()
    times = (report.started, report.ended, report.dump_time, *of_verdict)
    yield from (time for time in times if time is not None)


def clean(value: Any) -> Any:
    """JSON has no place for half a surrogate pair, which is how Python keeps a byte that is not UTF-8."""
    if isinstance(value, str):
        return _SURROGATE.sub(lambda match: printable(match[0]), value)
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value
