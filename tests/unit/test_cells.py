"""Text fits into the cells that there are, whatever it is made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.policy.cells import cells, cut, cut_path, pad, wrap
from immich_usb_backup.policy.text import harmless

TEXTS = st.text(st.sampled_from("ab 写\u0301é- "), max_size=60) | st.text(st.characters(categories=None)).map(harmless)
ROOMS = st.integers(2, 50)


@pytest.mark.parametrize(
    ("text", "number"), [("abc", 3), ("写真", 4), ("e\u0301", 1), ("é", 1), ("ｱ", 1), ("🎉", 2), ("", 0)]
)
def test_what_a_terminal_needs(text: str, number: int) -> None:
    assert cells(text) == number


@given(TEXTS, ROOMS)
def test_a_cut_text_fits(text: str, room: int) -> None:
    for shown in (cut(text, room), cut_path(text, room)):
        assert cells(shown) <= room
        assert shown == text or "…" in shown
    assert cells(pad(text, room)) == room


@given(TEXTS, ROOMS, st.integers(0, 8))
def test_wrapped_lines_fit_and_nothing_but_spaces_is_lost(text: str, room: int, indent: int) -> None:
    lines = list(wrap(text, room, indent=indent))
    assert all(cells(line) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_lines_break_at_spaces_and_keep_their_margin() -> None:
    assert list(wrap("  two words here", 11, indent=2)) == ["  two words", "    here"]
    assert list(wrap("unbreakable", 4)) == ["unbr", "eaka", "ble"]


def test_the_end_of_a_path_tells_more() -> None:
    assert cut_path("library/2024/写真.jpg", 12) == "…24/写真.jpg"
