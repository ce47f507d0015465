"""`doctor --send-test-mail` through a real SMTP server."""

from __future__ import annotations

import email
import socket
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from immich_usb_backup.doctor.checked import Checked, Result
from immich_usb_backup.doctor.everything import look
from tests.support.set_up import CONFIG, STATE, SetUp, set_up


class Post:
    """Takes mail, but for one address."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = cast(bytes, envelope.content)
        self.mails.append(email.message_from_bytes(content, policy=SMTP_POLICY))
        return "250 taken"


@pytest.fixture
def post() -> Iterator[tuple[Post, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    handler = Post()
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, port
    controller.stop()


def _found(whole: SetUp) -> list[Checked]:
    return [one for one in look(whole.machine(), CONFIG, STATE, send_mail=True) if one.about == "test mail"]


def _configure(whole: SetUp, port: int, *to: str) -> None:
    whole.configure(f'[mail]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\nto = {list(to)}')


def test_a_message_arrives_and_the_address_that_is_refused_is_named(tmp_path: Path, post: tuple[Post, int]) -> None:
    handler, port = post
    whole = set_up(tmp_path)
    _configure(whole, port, "me@example.org", "nobody@example.org")
    refused, taken = _found(whole)
    assert (refused.result, taken.result) == (Result.PROBLEM, Result.OK)
    assert "nobody@example.org was refused" in refused.text
    assert "550 no such mailbox" in refused.text
    assert "me@example.org" in taken.text
    (mail,) = handler.mails
    assert mail["Subject"].startswith("Test message of the Immich backup")
    assert "--send-test-mail" in cast(EmailMessage, mail.get_body(("plain",))).get_content()


def test_a_server_that_is_not_there_is_a_problem_with_a_way_out(tmp_path: Path) -> None:
    whole = set_up(tmp_path)
    with socket.socket() as taken:  # nobody listens
        taken.bind(("127.0.0.1", 0))
        _configure(whole, taken.getsockname()[1], "me@example.org")
        (said,) = _found(whole)
    assert said.result is Result.PROBLEM
    assert "refused the connection" in said.text
    assert said.todo


def test_without_mail_in_the_configuration_nothing_is_sent(tmp_path: Path) -> None:
    (said,) = _found(set_up(tmp_path))
    assert said.result is Result.PROBLEM
    assert "nothing was sent" in said.text
