"""The journal's catalog: an explanation for every kind of line, and nothing foreign in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from immich_usb_backup.adapters.journal import PREFIX
from immich_usb_backup.events import Event

CATALOG = Path(__file__).resolve().parents[2] / "systemd/immich-usb-backup.catalog"
PARTS = ("What happened: ", "What it means: ", "What to do: ")
OWN_WORDS = {"TRANSPORTS", "FINDING", "RESTORABLE", "RUN"}
"""Fields that hold words of ours alone: journalctl shows a field in an explanation as it is."""


def entries() -> Mapping[str, tuple[str, str]]:
    """By MESSAGE_ID: the event's code and the text below it."""
    found: dict[str, tuple[str, str]] = {}
    for code, message_id, text in re.findall(
        r"(?ms)^# ([a-z-]+)\n-- ([0-9a-f]{32})\n(.*?)(?=^# |\Z)", CATALOG.read_text()
    ):
        assert message_id not in found, "explained twice"
        found[message_id] = (code, text)
    return found


def test_every_event_is_explained() -> None:
    assert {message_id: code for message_id, (code, _) in entries().items()} == {
        event.kind.message_id: event.code for event in Event
    }


def test_each_explanation_says_what_happened_what_it_means_and_what_to_do() -> None:
    for code, text in entries().values():
        headers, *paragraphs = text.strip().split("\n\n")
        assert re.fullmatch(r"Subject: .+\nDefined-By: immich-usb-backup\nDocumentation: man:.+\(1\)", headers), code
        assert [part for part in PARTS for paragraph in paragraphs if paragraph.startswith(part)] == list(PARTS), code
        assert len(paragraphs) == len(PARTS), code
        assert all(len(paragraph.removeprefix(part)) > 7 for part, paragraph in zip(PARTS, paragraphs, strict=True))


def test_no_explanation_shows_what_a_disk_is_called() -> None:
    assert {name.removeprefix(PREFIX) for name in re.findall(r"@(\w+)@", CATALOG.read_text())} - {"FIELD"} <= OWN_WORDS
