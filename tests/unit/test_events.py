"""Every kind of event has an identity of its own and a sentence that its fields fill."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest

import immich_usb_backup
from immich_usb_backup.events import Event
from immich_usb_backup.policy.text import fill

PACKAGE = Path(immich_usb_backup.__file__).parent


def _fields(event: Event) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(event.kind.template) if name}


def test_message_ids_are_unique_and_as_journald_wants_them() -> None:
    ids = [event.kind.message_id for event in Event]
    assert len(set(ids)) == len(list(Event)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{32}", message_id) for message_id in ids)


@pytest.mark.parametrize("event", Event)
def test_every_template_fills(event: Event) -> None:
    fields = dict.fromkeys(_fields(event), "words")
    numbers = {name: 5 for name in fields if name in {"seconds", "percent", "total_bytes", "free_bytes"}}
    line = fill(event.kind.template, fields | numbers)
    assert line
    assert "{" not in line
    assert "?" not in line


def _said() -> list[tuple[str, Event, set[str], bool]]:
    """Every ``….say(Event.X, …)`` in the package: where, what, with which fields, and whether more come by ``**``."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "say":
                event = node.args[0] if node.args else None
                if isinstance(event, ast.Attribute) and getattr(event.value, "id", "") == "Event":
                    names = {keyword.arg for keyword in node.keywords}
                    known = {name for name in names if name}
                    found.append((f"{path.name}:{node.lineno}", Event[event.attr], known, None in names))
    return found


def test_whoever_says_an_event_gives_the_fields_of_its_sentence() -> None:
    said = _said()
    assert len(said) > 15
    wrong = [(where, _fields(event) - names) for where, event, names, more in said if not more]
    assert not [entry for entry in wrong if entry[1]]
