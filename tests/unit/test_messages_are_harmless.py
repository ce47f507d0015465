"""Whatever a disk is called: no header is injected, no markup comes through, no bus connection is lost over it."""

from __future__ import annotations

import dataclasses
import email
import html.parser
import unicodedata
from datetime import timedelta
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest
from tests.support.telling import HOSTILE_NAMES, NOON, hostile_report, make_mail, make_report

from immich_usb_backup.adapters import mail_template
from immich_usb_backup.adapters.desktop import Desktop
from immich_usb_backup.errors import DeliveryFailed
from immich_usb_backup.model import Notice, NoticeKind, Outcome
from immich_usb_backup.policy import note_words, notes
from immich_usb_backup.policy.letters import letter_of
from immich_usb_backup.policy.news import Ended, ended
from immich_usb_backup.policy.text import harmless

pytestmark = pytest.mark.parametrize("name", HOSTILE_NAMES)

HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "X-Immich-USB-Backup-Outcome",
    "X-Immich-USB-Backup-Run",
    "MIME-Version",
    "Content-Type",
]
PLAIN_LINES = 28
ALLOWED_TAGS = {"html", "head", "meta", "title", "style", "body", "div", "h1", "h2", "p", "ul", "li", "br", "span"}


def _hostile(name: str) -> Ended:
    """A run, and one like it before."""
    report = hostile_report(name)
    return ended(report, [dataclasses.replace(report, run_id="before", ended=NOON - timedelta(hours=3))])


def _sent(name: str) -> EmailMessage:
    """As the receiving side parses it."""
    raw = mail_template.to_wire(mail_template.compose(_hostile(name), make_mail(), now=NOON))
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    parsed = email.message_from_bytes(raw, policy=SMTP)
    assert isinstance(parsed, EmailMessage)
    return parsed


def _is_harmless(text: str) -> bool:
    return not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text)


def test_mail_headers(name: str) -> None:
    message = _sent(name)
    assert sorted(message.keys()) == sorted(HEADERS)
    assert not message.defects
    assert message["To"].addresses[0].addr_spec == "me@example.org"
    assert len(message["To"].addresses) == 1
    assert message["Subject"].startswith("'")
    assert " is backed up, but not everything: safe to unplug (2 times in a row since " in message["Subject"]
    assert _is_harmless(message["Subject"])


def test_mail_text(name: str) -> None:
    part = _sent(name).get_body(("plain",))
    assert part is not None
    assert _is_harmless(part.get_content().replace("\r", "").replace("\n", ""))
    assert len(part.get_content().splitlines()) == PLAIN_LINES, "nobody adds a line"


class Tags(html.parser.HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {key for key, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_mail_html(name: str) -> None:
    part = _sent(name).get_body(("html",))
    assert part is not None
    page = Tags()
    page.feed(part.get_content())
    assert page.tags == ALLOWED_TAGS
    assert page.attributes <= {"lang", "charset", "name", "content", "class", "style"}
    assert _is_harmless("".join(page.text).replace("\r", "").replace("\n", ""))


def test_the_same_name_as_a_run_id(name: str) -> None:
    message = mail_template.compose(Ended(report=make_report(name)), make_mail(), now=NOON)
    again = mail_template.compose(Ended(report=make_report(name)), make_mail(), now=NOON)
    assert message["Message-ID"] == again["Message-ID"]
    assert email.message_from_bytes(message.as_bytes(), policy=SMTP)["Message-ID"].endswith("@example.org>")


def test_as_an_address_it_is_refused_or_plain(name: str) -> None:
    address = _address(f"{name}@é{name}")
    assert isinstance(address, DeliveryFailed) or (address.isascii() and address.isprintable())
    assert _is_harmless(str(address))
    assert isinstance(address, DeliveryFailed) or not set(address) & set(' <>,;:\\"')


def _address(text: str) -> str | DeliveryFailed:
    try:
        return mail_template.ascii_address(text)
    except DeliveryFailed as error:
        return error


class FakeBus:
    """Answers as a notification server would, and remembers."""

    def __init__(self, capabilities: list[str]) -> None:
        self.capabilities = capabilities
        self.notified: list[Any] = []

    async def call(self, *arguments: Any, timeout: float) -> tuple[Any, ...]:
        member, body = arguments[3], arguments[5]
        if member == "GetCapabilities":
            return (self.capabilities,)
        self.notified = body
        return (7,)


@pytest.mark.parametrize("markup", [True, False])
async def test_the_desktop(name: str, markup: bool) -> None:
    bus = FakeBus(["body", "body-markup"] if markup else ["body"])
    values = {"outcome": "partial", "headline": name, "body": f"{name}\n{name}<b>", "todo": name, "disk": name}
    for note in (
        notes.finished(values),
        notes.running(notes.run_of({**values, "run": "r", "line": name})),
        notes.stopped(notes.run_of(values)),
        notes.notice({**values, "kind": name}),
        notes.with_answer(notes.finished(values), note_words.refused("x.Error", name), without=frozenset()),
    ):
        assert await Desktop(bus).show(note, replaces=0) == 7  # type: ignore[arg-type]
        summary, body = bus.notified[3], bus.notified[4]
        assert _is_harmless(summary + body.replace("\n", ""))
        assert (summary + body).encode("utf-8")
        assert len(summary) < 500
        assert len(body) < 10_000
        assert not (markup and ("<" in body or ("&" in body and "&amp;" not in body and "&lt;" not in body)))


def test_harmless_keeps_what_is_harmless(name: str) -> None:
    assert harmless(harmless(name)) == harmless(name)
    assert harmless("Grüße 📷 " * 50) == "Grüße 📷 " * 50


def test_the_outcome_of_every_kind_has_a_page(name: str) -> None:
    for outcome in Outcome:
        assert "<h1" in mail_template.html_part(letter_of(Ended(report=make_report(name=name, outcome=outcome))))


def test_a_notice_by_mail(name: str) -> None:
    notice = Notice(
        notice_id="n1",
        kind=NoticeKind.STRANGER,
        server=name,
        time=NOON,
        headline=name,
        lines=(name, f"<b>{name}"),
        todo=(name,),
        disk_uuid=name,
        disk_name=name,
    )
    raw = mail_template.to_wire(mail_template.compose(notice, make_mail(), now=NOON))
    message = email.message_from_bytes(raw, policy=SMTP)
    assert {"Bcc", "Reply-To"}.isdisjoint(message.keys())
    assert _is_harmless(str(message["Subject"]))
    assert message["X-Immich-USB-Backup-Notice"] == "stranger"
    assert isinstance(message, EmailMessage)
    part = message.get_body(("html",))
    assert part is not None
    page = Tags()
    page.feed(part.get_content())
    assert page.tags <= ALLOWED_TAGS
    assert _is_harmless("".join(page.text).replace("\r", "").replace("\n", ""))
