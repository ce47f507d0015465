"""Draws docs/pictures: a terminal with what a real run printed, for light and for dark pages.

./scripts/demo > demo.txt && .venv/bin/python -m scripts.picture demo.txt    # a new run
.venv/bin/python -m scripts.picture                                          # the kept one, drawn anew
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).resolve().parents[1] / "docs/pictures"
RUN = FOLDER / "backup.txt"
PROMPT = "$ ./scripts/demo"
COLUMNS = 100
_BEGIN, _END = "The daemon, and the disk is plugged in", "── "
_CELL, _ROW, _MARGIN, _BAR = 8.4, 19, 18, 30
_INDENT = " " * 9  # below the sentences, which stand behind the time
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

THEMES: Mapping[str, Mapping[str, str]] = {
    "light": {"ground": "#ffffff", "frame": "#d0d7de", "text": "#1f2328", "dim": "#59636e", "good": "#116329"},
    "dark": {"ground": "#0d1117", "frame": "#3d444d", "text": "#e6edf3", "dim": "#9198a1", "good": "#56d364"},
}


def main(arguments: Sequence[str]) -> int:
    """Draw both; with a file, of the run that it holds."""
    if arguments:
        RUN.write_text("".join(f"{line}\n" for line in run_in(Path(arguments[0]).read_text())))
    lines = RUN.read_text().splitlines()
    for theme in THEMES:
        (FOLDER / f"backup-{theme}.svg").write_text(drawn(lines, theme))
    return 0


def run_in(demo: str) -> Iterator[str]:
    """The daemon's lines in what the demo printed."""
    _, _, rest = demo.partition(_BEGIN)
    for line in rest.splitlines()[1:]:
        if line.startswith(_END):
            return
        if line.strip():
            yield line.removeprefix("  ")


def rows(lines: Iterable[str]) -> Iterator[str]:
    """The lines as a terminal of ``COLUMNS`` has them, broken between words."""
    yield PROMPT
    for line in lines:
        yield from textwrap.wrap(line, COLUMNS, subsequent_indent=_INDENT, drop_whitespace=True) or [""]


def drawn(lines: Iterable[str], theme: str) -> str:
    """The picture as SVG."""
    shown = list(rows(lines))
    width, height = round(2 * _MARGIN + COLUMNS * _CELL), _BAR + _ROW * len(shown) + _MARGIN
    texts = "\n".join(_row(number, row) for number, row in enumerate(shown))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>A backup from the plug-in to "safe to unplug"</title>
<style>{_style(THEMES[theme])}</style>
<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" class="ground"/>
{texts}
</svg>
"""


def _style(colours: Mapping[str, str]) -> str:
    return (
        f".ground {{ fill: {colours['ground']}; stroke: {colours['frame']} }} "
        f"text {{ font: 14px {_FONT}; fill: {colours['text']}; white-space: pre }} "
        f".dim {{ fill: {colours['dim']} }} .good {{ fill: {colours['good']}; font-weight: bold }} "
        ".strong { font-weight: bold }"
    )


def _row(number: int, row: str) -> str:
    text = row.lstrip()
    x = _MARGIN + _CELL * (len(row) - len(text))
    y = _BAR + _ROW * number
    place = f'x="{x:.1f}" y="{y}" textLength="{_CELL * len(text):.1f}"'
    return f'<text {place} class="{_kind(row)}" xml:space="preserve">{escape(text)}</text>'


def _kind(row: str) -> str:
    if row == PROMPT:
        return "strong"
    if "safe to unplug" in row:
        return "good"
    return "dim" if row.lstrip().startswith("…") else "plain"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
