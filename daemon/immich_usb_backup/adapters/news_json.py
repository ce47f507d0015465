"""An entry of the outbox as JSON: versioned, and beside what earlier versions wrote.

``{"version": 1, "report": …}`` is an outcome, as it always was; ``recent`` beside it are the runs of that disk before it.
``begun`` instead of ``report`` is a run that has begun, ``notice`` is a notice.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from immich_usb_backup.adapters import report_json
from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.model import Notice
from immich_usb_backup.policy.news import Begun, Brief, Ended, News

_NOTICE: TypeAdapter[Notice] = TypeAdapter(Notice)
_RECENT: TypeAdapter[tuple[Brief, ...]] = TypeAdapter(tuple[Brief, ...])


def dump(news: News) -> bytes:
    """One JSON document, always valid UTF-8."""
    return json.dumps(
        {"version": report_json.VERSION, **_content(news)}, ensure_ascii=False, separators=(",", ":")
    ).encode()


def _content(news: News) -> dict[str, Any]:
    if isinstance(news, Notice):
        return {"notice": report_json.clean(_NOTICE.dump_python(news, mode="json"))}
    if isinstance(news, Begun):
        return {"begun": report_json.plain(news.report)}
    recent = report_json.clean(_RECENT.dump_python(news.recent, mode="json"))
    return {"report": report_json.plain(news.report), "recent": recent}


def load(content: bytes) -> News:
    """What is in a document. Raises ``StateDamaged`` for anything else, and for one of a newer version."""
    try:
        document = from_json(content)
    except ValueError as error:
        raise StateDamaged(f"it is not JSON ({error})") from error
    if isinstance(document, dict) and document.get("version") == report_json.VERSION:
        if "notice" in document:
            return _notice(document["notice"])
        if "begun" in document:
            return Begun(report=report_json.report_of(document["begun"]))
    return Ended(report=report_json.load(content), recent=_recent(document))


def _notice(value: object) -> Notice:
    try:
        notice = _NOTICE.validate_python(value)
    except ValidationError as error:
        raise StateDamaged(f"it is not a notice ({error.errors()[0]['msg']})") from error
    if notice.time.tzinfo is None:
        raise StateDamaged("it is not a notice (a time without a zone)")
    return notice


def _recent(document: object) -> tuple[Brief, ...]:
    """Nobody goes untold because the runs before cannot be read."""
    value = document.get("recent", ()) if isinstance(document, dict) else ()
    try:
        found = _RECENT.validate_python(value)
    except ValidationError:
        return ()
    return found if all(one.ended.tzinfo is not None for one in found) else ()
