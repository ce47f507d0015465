"""A run report as a mail: headers, a plain-text part and an HTML part for light and dark screens.

Everything from the report is foreign text here, whoever cleaned it before: each line is made harmless, and escaped
where it stands in HTML.
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

from immich_usb_backup import messages
from immich_usb_backup.config import Mail
from immich_usb_backup.errors import DeliveryFailed
from immich_usb_backup.model import Outcome, RunReport
from immich_usb_backup.policy.text import harmless, moment, printable

_LONGEST_HEADER = 900
"""RFC 5322 allows 998."""

_SENDER_NAME = "Immich USB backup"
_LEGAL_ID = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_COLOURS = {
    Outcome.OK: "#2e7d32",
    Outcome.PARTIAL: "#b26a00",
    Outcome.FAILED: "#c62828",
    Outcome.INTERRUPTED: "#b26a00",
}
_HTML = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
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
<div class="card" style="max-width:36em;margin:0 auto;padding:16px 24px;background:#ffffff;border-left:6px solid {colour};border-radius:6px">
<h1 style="font-size:20px;line-height:1.3;margin:0 0 12px">{headline}</h1>
{problems}{verdict}{lines}{todo}<p class="quiet" style="margin:16px 0 0;font-size:13px;color:#666666">{facts}</p>
</div>
</body>
</html>
"""
_LINE = '<p style="margin:0 0 8px">{}</p>\n'
_ITEM = '<p style="margin:0 0 4px 16px;font-family:monospace;font-size:13px;word-break:break-all">{}</p>\n'
_VERDICT = (
    '<div class="box" style="margin:12px 0;padding:12px 16px;background:#f0f4f8;border-radius:6px">\n'
    '<h2 style="font-size:16px;margin:0 0 8px">What this disk would bring back</h2>\n{}</div>\n'
)
_TODO = (
    '<h2 style="font-size:16px;margin:16px 0 8px">What to do</h2>\n<ul style="margin:0;padding-left:20px">\n{}</ul>\n'
)
_TODO_ITEM = '<li style="margin:0 0 4px">{}</li>\n'


def compose(report: RunReport, mail: Mail, *, now: datetime) -> EmailMessage:
    """The mail about a run: the same run gives the same Message-ID. Raises ``DeliveryFailed`` for an impossible address."""
    message = EmailMessage(policy=SMTP)
    sender = ascii_address(mail.sender)
    message["From"] = Address(_SENDER_NAME, addr_spec=sender)
    message["To"] = [Address(addr_spec=ascii_address(one)) for one in mail.to]
    message["Subject"] = _subject(report)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{_id(report)}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Immich-USB-Backup-Outcome"] = report.outcome.value
    message["X-Immich-USB-Backup-Run"] = _id(report)
    message.set_content(text_part(report), cte="quoted-printable")
    message.add_alternative(html_part(report), subtype="html", cte="quoted-printable")
    return message


def to_wire(message: EmailMessage) -> bytes:
    """The mail as the server takes it, 7-bit. A subject in ASCII stays on one line: Python's folding moves its first
    word to a line of its own, and some readers then show none."""
    if str(message["Subject"]).isascii():
        return message.as_bytes(policy=SMTP.clone(max_line_length=_LONGEST_HEADER))
    return message.as_bytes()


def _subject(report: RunReport) -> str:
    """``=?`` would begin an encoded word: the email package decodes it, and writes a line end that was hidden in it
    as the end of the header (CVE-2024-6923; Debian 12's Python has it)."""
    return harmless(messages.headline(report)).replace("=?", "= ?")


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


def _id(report: RunReport) -> str:
    if len(report.run_id) <= 64 and _LEGAL_ID.fullmatch(report.run_id):
        return report.run_id
    return hashlib.sha256(report.run_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def text_part(report: RunReport) -> str:
    """The plain text."""
    message = messages.outcome_message(report)
    blocks = [[message.headline], message.problems]
    blocks += [["What this disk would bring back:", *message.verdict]] if message.verdict else []
    blocks += [message.facts]
    blocks += [["What to do:", *(f"- {line}" for line in message.todo)]] if message.todo else []
    blocks += [_facts(report)]
    return "\n\n".join("\n".join(_cleaned(block)) for block in blocks if block) + "\n"


def html_part(report: RunReport) -> str:
    """The same as HTML that loads nothing from anywhere."""
    message = messages.outcome_message(report)
    todo = "".join(_TODO_ITEM.format(html.escape(line)) for line in _cleaned(message.todo))
    return _HTML.format(
        headline=html.escape(harmless(message.headline)),
        colour=_COLOURS[report.outcome],
        problems=_html_lines(message.problems),
        verdict=_VERDICT.format(_html_lines(message.verdict)) if message.verdict else "",
        lines=_html_lines(message.facts),
        todo=_TODO.format(todo) if todo else "",
        facts="<br>\n".join(html.escape(line) for line in _cleaned(_facts(report))),
    )


def _html_lines(lines: Sequence[str]) -> str:
    return "".join(map(_html_line, _cleaned(lines)))


def _html_line(line: str) -> str:
    if line.startswith("  - "):
        return _ITEM.format(html.escape(line[4:]))
    return _LINE.format(html.escape(line))


def _cleaned(lines: Sequence[str]) -> list[str]:
    """A line end inside one is shown and not obeyed: a file name could add lines of its own."""
    return [harmless(line) for line in lines]


def _facts(report: RunReport) -> list[str]:
    disk = report.disk
    kind = " ".join(filter(None, (disk.model, disk.serial)))
    return [
        f"Server {report.server}, {moment(report.started)} to {moment(report.ended)}",
        f"Disk '{disk.name}' (file system {disk.uuid}{', ' + kind if kind else ''})",
        f"Run {report.run_id}",
    ]
