"""A letter as a mail: headers, a plain-text part and an HTML part for light and dark screens.

Everything in it is foreign text here, whoever cleaned it before: it is escaped where it stands in HTML.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Sequence
from datetime import datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from immich_usb_backup.config import Mail
from immich_usb_backup.errors import DeliveryFailed
from immich_usb_backup.model import Notice
from immich_usb_backup.policy.letters import RUNS_SHOWN, Letter, letter_of
from immich_usb_backup.policy.news import Ended
from immich_usb_backup.policy.status_words import strip
from immich_usb_backup.policy.text import printable

_LONGEST_HEADER = 900
"""RFC 5322 allows 998."""

_SENDER_NAME = "Immich USB backup"
_LEGAL_ID = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_GOOD, _MIDDLE, _BAD, _NOTICE = "#2e7d32", "#a15c00", "#c62828", "#1565c0"
_COLOURS = {"ok": _GOOD, "partial": _MIDDLE, "failed": _BAD, "interrupted": _MIDDLE}
_CELL_COLOURS = {"o": _GOOD, "p": _MIDDLE, "f": _BAD, "i": _MIDDLE}
_HTML = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<title>{headline}</title>
<style>
:root {{ color-scheme: light dark; }}
@media (prefers-color-scheme: dark) {{
  .page {{ background: #1b1b1d !important; color: #e6e6e6 !important; }}
  .card {{ background: #26262a !important; }}
  .box {{ background: #32323a !important; }}
  .quiet {{ color: #a8a8a8 !important; }}
}}
</style>
</head>
<body class="page" style="margin:0;padding:16px;background:#f4f4f5;color:#1d1d1f;font:16px/1.5 sans-serif">
<div class="card" style="max-width:36em;margin:0 auto;padding:16px 24px;background:#ffffff;border-left:6px solid {colour};border-radius:6px;overflow-wrap:anywhere">
<h1 style="font-size:20px;line-height:1.3;margin:0 0 12px">{headline}</h1>
{problems}{todo}{verdict}{history}{facts}<p class="quiet" style="margin:16px 0 0;font-size:13px;color:#666666">{small}</p>
</div>
</body>
</html>
"""
_LINE = '<p style="margin:8px 0">{}</p>\n'
_ITEM = '<p style="margin:0 0 4px 16px;font-family:monospace;font-size:13px;word-break:break-all">{}</p>\n'
_VERDICT = (
    '<div class="box" style="margin:12px 0;padding:12px 16px;background:#f0f4f8;border-radius:6px">\n'
    '<h2 style="font-size:16px;margin:0 0 8px">What this disk would bring back</h2>\n{}</div>\n'
)
_TODO = (
    '<h2 style="font-size:16px;margin:16px 0 8px">What to do</h2>\n'
    '<ul style="margin:0 0 16px;padding-left:20px">\n{}</ul>\n'
)
_TODO_ITEM = '<li style="margin:0 0 4px">{}</li>\n'
_HISTORY = (
    '<div style="margin:16px 0">\n<h2 style="font-size:16px;margin:0 0 8px">The last backups to this disk</h2>\n'
    '<p style="margin:0 0 4px;line-height:30px">{}</p>\n'
    '<p class="quiet" style="margin:0;font-size:13px;color:#666666">{}</p>\n{}</div>\n'
)
_CELL = (
    '<span style="display:inline-block;width:12px;margin:0 3px 0 0;background:{};color:#ffffff;border-radius:3px;'
    'font:bold 13px/26px monospace;text-align:center">{}</span>'
)


def compose(news: Ended | Notice, mail: Mail, *, now: datetime) -> EmailMessage:
    """The mail about something: the same gives the same Message-ID. Raises ``DeliveryFailed`` for an impossible address."""
    letter = letter_of(news)
    message = EmailMessage(policy=SMTP)
    sender = ascii_address(mail.sender)
    message["From"] = Address(_SENDER_NAME, addr_spec=sender)
    message["To"] = [Address(addr_spec=ascii_address(one)) for one in mail.to]
    message["Subject"] = _subject(letter)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{_id(letter)}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    if isinstance(news, Notice):
        message["X-Immich-USB-Backup-Notice"] = news.kind.value
    else:
        message["X-Immich-USB-Backup-Outcome"] = news.report.outcome.value
        message["X-Immich-USB-Backup-Run"] = _id(letter)
    message.set_content(text_part(letter), cte="quoted-printable")
    message.add_alternative(html_part(letter), subtype="html", cte="quoted-printable")
    return message


def to_wire(message: EmailMessage) -> bytes:
    """The mail as the server takes it, 7-bit. A subject in ASCII stays on one line: Python's folding moves its first
    word to a line of its own, and some readers then show none."""
    if str(message["Subject"]).isascii():
        return message.as_bytes(policy=SMTP.clone(max_line_length=_LONGEST_HEADER))
    return message.as_bytes()


def _subject(letter: Letter) -> str:
    """``=?`` would begin an encoded word: the email package decodes it, and writes a line end that was hidden in it
    as the end of the header (CVE-2024-6923; Debian 12's Python has it)."""
    return letter.subject.replace("=?", "= ?")


def ascii_address(text: str) -> str:
    """A mail address as every server takes it. Raises ``DeliveryFailed`` where there is none."""
    local, _, domain = text.rpartition("@")
    try:
        plain = f"{local}@{domain.encode('idna').decode('ascii')}"
        Address(addr_spec=plain)
    except (ValueError, IndexError, HeaderParseError) as error:  # a UnicodeError is a ValueError
        raise DeliveryFailed(
            f"{printable(text)} is no mail address that can be used.",
            permanent=True,
            hint="Correct mail.to and mail.from: letters with accents before the @ are not supported.",
        ) from error
    return plain


def _id(letter: Letter) -> str:
    if len(letter.letter_id) <= 64 and _LEGAL_ID.fullmatch(letter.letter_id):
        return letter.letter_id
    return hashlib.sha256(letter.letter_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def text_part(letter: Letter) -> str:
    """The plain text."""
    blocks: list[Sequence[str]] = [[letter.headline], letter.problems]
    blocks += [["What to do:", *(f"- {line}" for line in letter.todo)]] if letter.todo else []
    blocks += [["What this disk would bring back:", *letter.verdict]] if letter.verdict else []
    blocks += [["The last backups to this disk:", *letter.history_lines]] if letter.history_lines else []
    blocks += [letter.facts, letter.small]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def html_part(letter: Letter) -> str:
    """The same as HTML that loads nothing from anywhere."""
    todo = "".join(_TODO_ITEM.format(html.escape(line)) for line in letter.todo)
    return _HTML.format(
        headline=html.escape(letter.headline),
        colour=_COLOURS.get(letter.tone, _NOTICE),
        problems=_html_lines(letter.problems),
        todo=_TODO.format(todo) if todo else "",
        verdict=_VERDICT.format(_html_lines(letter.verdict)) if letter.verdict else "",
        history=_html_history(letter) if letter.history_lines else "",
        facts=_html_lines(letter.facts),
        small="<br>\n".join(map(html.escape, letter.small)),
    )


def _html_history(letter: Letter) -> str:
    """A cell for each run, with its character: colours alone are not for everybody."""
    signs = strip(letter.history, RUNS_SHOWN)
    cells = zip(letter.history, signs, strict=True)
    shown = "\n".join(_CELL.format(_CELL_COLOURS.get(one, _NOTICE), html.escape(sign.text)) for one, sign in cells)
    return _HISTORY.format(shown, html.escape(" ".join(letter.history_words)), _html_lines(letter.since))


def _html_lines(lines: Sequence[str]) -> str:
    return "".join(map(_html_line, lines))


def _html_line(line: str) -> str:
    if line.startswith("  - "):
        return _ITEM.format(html.escape(line[4:]))
    return _LINE.format(html.escape(line))
