"""Foreign text becomes one harmless line, whatever it is; numbers become what people say."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.telling import HOSTILE_NAMES

from immich_usb_backup.policy.text import counted, duration, fill, printable, sentence, size, utc_stamp

BAD = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(st.characters(categories=None)) | st.binary())
def test_printable_never_raises_and_lets_nothing_through(text: str | bytes) -> None:
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown} & BAD
    assert len(shown) <= 120
    shown.encode()


def test_what_is_not_text_shows_as_its_bytes() -> None:
    assert printable(b"caf\xe9.jpg") == "caf\\xe9.jpg"
    assert printable("caf\udce9.jpg") == "caf\\xe9.jpg"
    assert printable("a\u202eb\n") == "a\\u202eb\\n"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_events_line_is_one_harmless_line(name: str) -> None:
    line = fill("{message} on {disk:quote}: {items} {gone}", {"message": name, "disk": name, "items": (name,)})
    assert not {unicodedata.category(c) for c in line} & BAD
    assert line.splitlines() == [line]
    assert line.endswith("?")


def test_an_empty_quoted_field_leaves_no_gap() -> None:
    assert fill("Ignored {device} {label:quote}: {why}", {"device": "/dev/sda", "label": "", "why": "x"}) == (
        "Ignored /dev/sda : x"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (2e12, "2.0 TB")],
)
def test_sizes(number: float, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts() -> None:
    assert [counted(1, "file"), counted(41_203, "file"), counted(0, "entry", "entries")] == [
        "1 file",
        "41,203 files",
        "0 entries",
    ]


def test_sentences_end() -> None:
    assert sentence("a", "", "b!", " c ") == "a. b! c."


def test_stamps_are_utc() -> None:
    assert utc_stamp(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "20251231T230000Z"
    assert utc_stamp(datetime(2026, 1, 1, tzinfo=UTC)) == "20260101T000000Z"
