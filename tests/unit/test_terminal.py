"""What is written to terminals and pipes: colours where they are wanted, and lines that change where they can."""

from __future__ import annotations

import io

import pytest
from tests.support.told import going

from immich_usb_backup.cli.shown import LiveShown, PlainShown, shown_on
from immich_usb_backup.cli.terminal import Terminal
from immich_usb_backup.policy.cells import Tone, line
from immich_usb_backup.policy.views import RunView

XTERM = {"TERM": "xterm", "COLUMNS": "40"}


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "live", "colour"),
    [
        (Tty(), {"TERM": "xterm"}, True, True),
        (Tty(), {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        (Tty(), {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (Tty(), {"TERM": "dumb"}, False, False),
        (Tty(), {}, False, False),
        (io.StringIO(), {"TERM": "xterm"}, False, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, False, True),
        (io.StringIO(), {"FORCE_COLOR": "0"}, False, False),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_who_gets_colours_and_who_lines_that_change(
    stream: io.StringIO, environment: dict[str, str], live: bool, colour: bool
) -> None:
    terminal = Terminal(stream, environment)
    assert (terminal.live, terminal.colour) == (live, colour)
    assert isinstance(shown_on(terminal), LiveShown if live else PlainShown)
    terminal.say(line("safe", Tone.GOOD))
    assert stream.getvalue() == ("\x1b[32msafe\x1b[0m\n" if colour else "safe\n")


@pytest.mark.parametrize(
    ("environment", "columns"), [({"COLUMNS": "40"}, 40), ({"COLUMNS": "3"}, 20), ({}, 200), ({"COLUMNS": "x"}, 200)]
)
def test_how_wide_a_pipe_is(environment: dict[str, str], columns: int) -> None:
    assert Terminal(io.StringIO(), environment).columns == columns


def test_drawn_lines_make_way_for_those_that_stay() -> None:
    stream = Tty()
    terminal = Terminal(stream, {**XTERM, "NO_COLOR": "1"})
    terminal.redraw([line("one"), line("x" * 90)])
    terminal.redraw([line("two")])
    terminal.say(line("stays"))
    terminal.say(line("too"))
    up = "\x1b[1A\x1b[K"
    assert stream.getvalue() == f"one\n{'x' * 90}\r\x1b[K{up * 3}two\r\x1b[Kstays\ntoo\n"


def test_a_dumb_terminal_gets_a_line_for_each_step() -> None:
    stream = Tty()
    shown = shown_on(Terminal(stream, {"TERM": "dumb", "COLUMNS": "80"}))
    for percent in (1, 2, 3):
        shown.progress(going(percent=percent, line=f"copying, {percent} %"), "")
    shown.progress(going(stage="flush", line="writing"), "")
    shown.finished(RunView(run="1", outcome="ok", headline="done\x1b[2J", body="a\nb", todo="c"))
    assert stream.getvalue() == "copying, 1 %\nwriting\ndone\\u001b[2J\na\nb\nc\n"


def test_a_name_that_the_locale_cannot_show_ends_no_command() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Terminal(stream, {}).say(line("Straße"))
    assert raw.getvalue() == b"Stra\\xdfe\n"
