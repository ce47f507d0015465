"""Makes the manual pages from docs/reference, which the tests hold to the code: scripts/manual.py FOLDER [--date DAY].

Only the Markdown that those pages use is understood: headings, paragraphs, lists, tables, code and links.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

REFERENCE = Path(__file__).resolve().parents[1] / "docs/reference"
PROGRAM, SETTINGS = "immich-usb-backup", "immich-usb-backup.toml"
_WIDTH = 76
_BLOCK = re.compile(r"^```\w*\n(?P<code>.*?)^```$|^(?P<heading>#{1,3}) (?P<title>[^\n]+)$|^$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<bold>[^*]+)\*\*|\*(?P<italic>[^*\s][^*]*)\*")
_LINK = re.compile(r"\[([^\]]*)\]\([^)\s]+\)")
_ONLY_A_LINK = re.compile(r"(?:^|(?<=[.:)…]) )\[[^\]]*\]\([^)\s]+\)[.:]")
"""A sentence that leads to another document, and says nothing without it."""
_FILES = {
    "/etc/immich-usb-backup/config.toml": "The configuration.",
    "/etc/immich-usb-backup/smtp-password": "The password for mail; only root may read it.",
    "/etc/immich-usb-backup/ping-url": "The address of a monitor; only root may read it.",
    "/etc/immich-usb-backup/push-urls": "Addresses of phones and chats; only root may read it.",
    "/var/lib/immich-usb-backup": "History, lists of what lies on each disk, outbox.",
    "immich-server-backups/": "On the disk: the marker, and the only folder that is ever written to.",
}


def command_page(day: str) -> str:
    """immich-usb-backup(1)."""
    text = (REFERENCE / "commands.md").read_text("utf-8").partition("\n## Scripts")[0].partition("\n## Exit codes")[0]
    intro, _, commands = text.partition("\n## ")
    codes = (REFERENCE / "exit-codes.md").read_text("utf-8")
    parts = [
        _head(PROGRAM, 1, day, "back Immich up to USB disks"),
        '.SH SYNOPSIS\n.B immich\\-usb\\-backup\n.I COMMAND\n[\\fIOPTION\\fR ...]\n.br\n.B "immich\\-usb\\-backup \\-\\-version"',
        ".SH DESCRIPTION",
        *blocks(intro),
        ".SH COMMANDS",
        *blocks("## " + commands, below=True),
        ".SH EXIT STATUS",
        *blocks(codes),
        ".SH FILES",
        *(f".TP\n.I {_escaped(path)}\n{text}" for path, text in _FILES.items()),
        f".SH SEE ALSO\n.BR {_escaped(SETTINGS)} (5),\n.BR journalctl (1),\n.BR udisksctl (1),\n.BR rsync (1)",
    ]
    return _finished(parts)


def settings_page(day: str) -> str:
    """immich-usb-backup.toml(5)."""
    intro, _, sections = (REFERENCE / "configuration.md").read_text("utf-8").partition("\n## ")
    parts = [
        _head(SETTINGS, 5, day, "configuration of immich-usb-backup"),
        ".SH SYNOPSIS\n.I /etc/immich\\-usb\\-backup/config.toml\n.SH DESCRIPTION",
        *blocks(intro),
        ".SH OPTIONS",
        *blocks("## " + sections, below=True),
        f".SH SEE ALSO\n.BR {_escaped(PROGRAM)} (1)",
    ]
    return _finished(parts)


def _finished(parts: list[str]) -> str:
    return re.sub(r"(?m)^(\.S[HS] .*\n)\.PP\n", r"\1", "\n".join(parts) + "\n")


def _head(name: str, section: int, day: str, what: str) -> str:
    title = _escaped(name.upper())
    about = f"{_escaped(name)} \\- {what}"
    return f".TH {title} {section} {day} {PROGRAM} {PROGRAM}\n.SH NAME\n{about}"


def blocks(markdown: str, *, below: bool = False) -> Iterator[str]:
    """roff for each heading, paragraph, list, table and piece of code; the page's own title is left out. ``below``: headings
    of the second level stand below a section of the manual page."""
    place, plain = 0, ""
    for match in _BLOCK.finditer(markdown):
        yield from _paragraph(plain + markdown[place : match.start()])
        place, plain = match.end(), ""
        if match["code"] is not None:
            yield _code(match["code"])
        elif match["heading"] and len(match["heading"]) > 1:
            kind = ".SS" if below or len(match["heading"]) > 2 else ".SH"
            yield f'{kind} "{_inline(match["title"])}"'
    yield from _paragraph(markdown[place:])


def _paragraph(text: str) -> Iterator[str]:
    text = text.strip("\n")
    if not text.strip():
        return
    if text.startswith("|"):
        yield from _table(text.splitlines())
    elif re.match(r"- |\d+\. ", text):
        for item in re.split(r"\n(?=- |\d+\. )", text):
            mark, _, words = item.partition(" ")
            bullet = "\\(bu" if mark == "-" else mark
            yield f".IP {bullet} 4\n{_filled(words)}"
    else:
        yield f".PP\n{_filled(text)}"


def _table(rows: list[str]) -> Iterator[str]:
    """Each row as a term and its explanation."""
    for row in rows[2:]:
        term, *cells = (cell.strip() for cell in row.strip().strip("|").split(" | "))
        yield f".TP\n{_inline(term)}\n{_filled(_explained(*cells))}"


def _explained(first: str, second: str = "", third: str = "") -> str:
    """What stands in a row's other cells. Three of them are an option's type, default and meaning."""
    if third:
        return f"{third} ({first}; default: {second})"
    return f"{first} ({second})" if second else first


def _code(text: str) -> str:
    lines = "\n".join(_line(_escaped(line)) for line in text.rstrip("\n").splitlines())
    return f".PP\n.RS 4\n.EX\n{lines}\n.EE\n.RE"


def _filled(text: str) -> str:
    words = _inline(_ONLY_A_LINK.sub("", " ".join(text.split())))
    return "\n".join(map(_line, textwrap.wrap(words, _WIDTH, break_long_words=False, break_on_hyphens=False)))


def _inline(text: str) -> str:
    parts, place = [], 0
    text = _LINK.sub(r"\1", text)
    for match in _INLINE.finditer(text):
        parts.append(_escaped(text[place : match.start()]))
        font, inner = ("I", match["italic"]) if match["italic"] else ("B", match["code"] or match["bold"])
        parts.append(f"\\f{font}{_escaped(inner)}\\fR")
        place = match.end()
    return "".join([*parts, _escaped(text[place:])])


def _escaped(text: str) -> str:
    table = {"\\": "\\e", "-": "\\-", "'": "\\(aq", '"': "\\(dq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
    return "".join(table.get(character, character) for character in text)


def _line(text: str) -> str:
    """A line that begins with a dot would be a request."""
    return f"\\&{text}" if text.startswith((".", "'")) else text


def write(folder: Path, day: str) -> Iterable[Path]:
    """Both pages, below ``man1`` and ``man5``."""
    for name, section, page in ((PROGRAM, 1, command_page), (SETTINGS, 5, settings_page)):
        path = folder / f"man{section}" / f"{name}.{section}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(day), "utf-8")
        yield path


def main() -> None:
    """For scripts/install."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    newest = max(path.stat().st_mtime for path in REFERENCE.glob("*.md"))
    parser.add_argument(
        "--date", default=f"{datetime.fromtimestamp(newest, UTC):%Y-%m-%d}", help="default: %(default)s"
    )
    arguments = parser.parse_args()
    for path in write(arguments.folder, arguments.date):
        print(path)


if __name__ == "__main__":
    main()
