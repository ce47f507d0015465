"""Mail through a real SMTP server: TLS both ways, log-in, refusals, hangs, drops, and a notifier that is restarted."""

from __future__ import annotations

import asyncio
import datetime
import email
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any, cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from immich_usb_backup.adapters.delivered import DeliveredLedger
from immich_usb_backup.adapters.mail import Deadlines, SmtpMailer, is_permanent
from immich_usb_backup.adapters.outbox import OutboxFolder
from immich_usb_backup.adapters.secret_files import first_line
from immich_usb_backup.config import Mail
from immich_usb_backup.errors import DeliveryFailed
from immich_usb_backup.events import Event
from immich_usb_backup.model import Outcome
from immich_usb_backup.notifier import NotifierPorts, deliver_all
from immich_usb_backup.policy.news import Ended
from tests.support.telling import Recorder, SetClock, make_mail, make_report

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")

PASSWORD = "correct horse"
USER = "nas"
DEADLINES = Deadlines(connect=1, command=1, last_reply=1, overall=2)


# A server -------------------------------------------------------------------------------------------------


class Post:
    """An aiosmtpd handler: takes mail, or does what a test wants instead."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.logins: list[bool] = []
        self.over_tls: list[bool] = []
        self.attempts = 0
        self.answer_recipient: Callable[[str], str] = lambda address: "250 OK"
        self.answer_data: Callable[[SMTP], str] = lambda server: "250 taken"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> str:
        answer = self.answer_recipient(address)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.attempts += 1
        answer = self.answer_data(server)
        if answer == "hang":
            await asyncio.sleep(5)
        if not answer.startswith("250"):
            return answer
        self.over_tls.append(
            session.ssl is not None or (isinstance(server.transport, asyncio.Transport) and _tls(server))
        )
        self.logins.append(bool(session.authenticated))
        self.recipients.append(list(envelope.rcpt_tos))
        content = cast(bytes, envelope.content)
        self.mails.append(email.message_from_bytes(content, policy=SMTP_POLICY))
        return answer


def _tls(server: SMTP) -> bool:
    transport = server.transport
    return transport is not None and transport.get_extra_info("ssl_object") is not None


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def serve(post: Post) -> Iterator[Callable[..., int]]:
    """Starts a server with aiosmtpd's options; returns its port."""
    running: list[Controller] = []

    def start(**options: Any) -> int:
        controller = Controller(post, hostname="127.0.0.1", port=0, **options)
        controller.port = _free_port()
        controller.start()
        running.append(controller)
        return int(controller.port)

    yield start
    for controller in running:
        controller.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and data == LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=False)


def _make_certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    public, private = folder / f"{name}.pem", folder / f"{name}.key"
    public.write_bytes(certificate.public_bytes(encoding))
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\nsecond line\n")
    return path


def _mailer(mail: Mail, **options: Any) -> SmtpMailer:
    return SmtpMailer(mail, clock=SetClock(), deadlines=DEADLINES, **options)


def _channels(mail: Mail) -> tuple[str, ...]:
    return tuple(f"mail:{address}" for address in mail.to)


async def _failure(mail: Mail, **options: Any) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as caught:
        await _mailer(mail, **options).deliver(Ended(report=make_report()), _channels(mail))
    assert PASSWORD not in f"{caught.value.message} {caught.value.hint}"
    return caught.value


# What arrives ---------------------------------------------------------------------------------------------


async def test_plain_to_localhost(serve: Callable[..., int], post: Post) -> None:
    mail = make_mail(port=serve(), to=["a@x.org", "b@x.org"])
    assert await _mailer(mail).deliver(Ended(report=make_report()), ("mail:a@x.org",)) == {}
    (message,) = post.mails
    assert post.recipients == [["a@x.org"]]
    assert message["To"] == "a@x.org, b@x.org"
    assert message["From"] == "Immich USB backup <nas@example.org>"
    assert message["Subject"] == "'Blue' is backed up: safe to unplug"
    assert message["Message-ID"] == "<20261121T120000Z-1@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Immich-USB-Backup-Outcome"] == "ok"
    assert message["Date"].datetime == SetClock().now()
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    text = message.get_body(("plain",))
    assert text is not None
    assert "12 files (34.0 MB) copied in 3 min 0 s." in text.get_content()


@pytest.mark.parametrize("outcome", Outcome)
async def test_every_outcome(outcome: Outcome, serve: Callable[..., int], post: Post) -> None:
    mail = make_mail(port=serve())
    await _mailer(mail).deliver(Ended(report=make_report(outcome=outcome, name="Größe 📷")), _channels(mail))
    assert "'Größe 📷'" in post.mails[0]["Subject"]
    assert post.mails[0]["X-Immich-USB-Backup-Outcome"] == outcome.value


# TLS ------------------------------------------------------------------------------------------------------


async def test_starttls_with_a_certificate_of_ones_own(
    serve: Callable[..., int], post: Post, tmp_path: Path, password_file: Path
) -> None:
    ca_file, context = _make_certificate(tmp_path, "localhost")
    port = serve(
        tls_context=context,
        require_starttls=True,
        authenticator=_check_login,
        auth_required=True,
        auth_require_tls=True,
    )
    mail = make_mail(
        port=port, security="starttls", ca_file=str(ca_file), username=USER, password_file=str(password_file)
    )
    assert await _mailer(mail).deliver(Ended(report=make_report()), _channels(mail)) == {}
    assert (post.over_tls, post.logins) == ([True], [True])


async def test_tls_from_the_first_byte(serve: Callable[..., int], post: Post, tmp_path: Path) -> None:
    ca_file, context = _make_certificate(tmp_path, "localhost")
    mail = make_mail(port=serve(ssl_context=context), security="tls", ca_file=str(ca_file))
    assert await _mailer(mail).deliver(Ended(report=make_report()), _channels(mail)) == {}
    assert post.over_tls == [True]


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_a_certificate_that_nobody_vouches_for(
    security: str, serve: Callable[..., int], post: Post, tmp_path: Path
) -> None:
    _, context = _make_certificate(tmp_path, "localhost")
    port = serve(**{"ssl_context" if security == "tls" else "tls_context": context})
    error = await _failure(make_mail(port=port, security=security))
    assert "certificate that is not trusted" in error.message
    assert "mail.ca_file" in error.hint
    assert not post.mails


async def test_a_certificate_for_another_name(serve: Callable[..., int], post: Post, tmp_path: Path) -> None:
    ca_file, context = _make_certificate(tmp_path, "elsewhere.example")
    error = await _failure(make_mail(port=serve(ssl_context=context), security="tls", ca_file=str(ca_file)))
    assert "certificate that is not trusted" in error.message
    assert "localhost" in error.message
    assert not post.mails


async def test_starttls_that_is_not_offered_sends_nothing(
    serve: Callable[..., int], post: Post, password_file: Path
) -> None:
    port = serve(authenticator=_check_login, auth_require_tls=False)
    error = await _failure(make_mail(port=port, security="starttls", username=USER, password_file=str(password_file)))
    assert "does not offer STARTTLS; nothing was sent" in error.message
    assert (post.attempts, post.logins) == (0, [])


async def test_tls_where_there_is_none(serve: Callable[..., int]) -> None:
    error = await _failure(make_mail(port=serve(), security="tls"))
    assert "Do mail.port and mail.security fit?" in error.hint


@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_a_bad_ca_file_is_named(content: str | None, tmp_path: Path, serve: Callable[..., int]) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    error = await _failure(make_mail(port=serve(), security="tls", ca_file=str(ca_file)))
    assert str(ca_file) in error.message


# Log-in ---------------------------------------------------------------------------------------------------


async def test_the_password_as_a_systemd_credential(serve: Callable[..., int], post: Post, tmp_path: Path) -> None:
    (tmp_path / "smtp-password").write_text(PASSWORD)
    port = serve(authenticator=_check_login, auth_required=True, auth_require_tls=False)
    mail = make_mail(port=port, username=USER)
    assert await _mailer(mail, credentials=tmp_path).deliver(Ended(report=make_report()), _channels(mail)) == {}
    assert post.logins == [True]


async def test_a_wrong_password(serve: Callable[..., int], post: Post, password_file: Path) -> None:
    password_file.write_text("wrong")
    port = serve(authenticator=_check_login, auth_required=True, auth_require_tls=False)
    error = await _failure(make_mail(port=port, username=USER, password_file=str(password_file)))
    assert "refused the log-in: 535" in error.message
    assert "password" in error.hint
    assert not error.permanent
    assert not post.mails


async def test_log_in_that_is_not_offered(serve: Callable[..., int], password_file: Path) -> None:
    error = await _failure(make_mail(port=serve(), username=USER, password_file=str(password_file)))
    assert "offers no log-in" in error.message


async def test_no_password_and_one_that_cannot_be_sent(serve: Callable[..., int], tmp_path: Path) -> None:
    port = serve(authenticator=_check_login, auth_required=True, auth_require_tls=False)
    assert "no password" in (await _failure(make_mail(port=port, username=USER))).message
    path = tmp_path / "password"
    path.write_text("gehe1m§")
    error = await _failure(make_mail(port=port, username=USER, password_file=str(path)))
    assert "not ASCII" in error.message
    assert error.__cause__ is None
    assert "gehe1m" not in error.message


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "No such file"), (b"", "empty"), (b"\nx", "empty"), (b"\xff", "UTF-8")]
)
def test_a_password_that_cannot_be_read(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeliveryFailed, match=problem):
        first_line(path, what="mail password")


def test_the_first_line_is_the_password(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b" with spaces \r\nnext")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert first_line(link, what="mail password") == " with spaces "


# A server that is not well --------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    error = await _failure(make_mail(port=_free_port()))
    assert "refused the connection" in error.message


async def test_a_name_that_does_not_exist() -> None:
    error = await _failure(make_mail(host="mail.does-not-exist.invalid", security="tls"))
    assert "cannot be found" in error.message or "cannot be reached" in error.message


async def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        error = await _failure(make_mail(port=silent.getsockname()[1]))
        assert time.monotonic() - began < 3
    assert "did not answer in time" in error.message


async def test_a_server_that_hangs_after_the_message(serve: Callable[..., int], post: Post) -> None:
    post.answer_data = lambda server: "hang"
    began = time.monotonic()
    error = await _failure(make_mail(port=serve()))
    assert time.monotonic() - began < 3
    assert "did not answer in time" in error.message


async def test_a_server_that_drips() -> None:
    """Every read is in time, and it would still take for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=_drip, args=[server], daemon=True)
        dripping.start()
        began = time.monotonic()
        error = await _failure(make_mail(port=server.getsockname()[1]))
        assert 1.5 < time.monotonic() - began < 3.5
        assert "closed the connection" in error.message
    dripping.join(5)


def _drip(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        try:
            connection.sendall(b"220 hello\r\n")
            for _ in range(40):
                connection.sendall(b"2")
                time.sleep(0.2)
        except OSError:
            return


async def test_a_server_that_drops_the_line_after_the_message(serve: Callable[..., int], post: Post) -> None:
    def drop(server: SMTP) -> str:
        assert server.transport is not None
        server.transport.close()
        return "451 never heard"

    post.answer_data = drop
    error = await _failure(make_mail(port=serve()))
    assert "closed the connection before it took the mail" in error.message


async def test_refused_recipients_are_named_and_the_others_have_it(serve: Callable[..., int], post: Post) -> None:
    answers = {"gone@x.org": "550 5.1.1 No such user", "later@x.org": "450 4.2.1 Mailbox busy"}
    post.answer_recipient = lambda address: answers.get(address, "250 OK")
    mail = make_mail(port=serve(), to=["me@x.org", *answers])
    refused = await _mailer(mail).deliver(Ended(report=make_report()), _channels(mail))
    assert post.recipients == [["me@x.org"]]
    assert {name: error.permanent for name, error in refused.items()} == {
        "mail:gone@x.org": True,
        "mail:later@x.org": False,
    }
    assert "refused gone@x.org: 550 5.1.1 No such user" in refused["mail:gone@x.org"].message


async def test_nobody_is_left_when_all_are_refused(serve: Callable[..., int], post: Post) -> None:
    post.answer_recipient = lambda address: "550 5.7.1 Relaying denied \x1b[31m"
    mail = make_mail(port=serve())
    refused = await _mailer(mail).deliver(Ended(report=make_report()), _channels(mail))
    assert post.attempts == 0
    assert not refused[_channels(mail)[0]].permanent, "a log-in would change it"
    assert "\x1b" not in refused[_channels(mail)[0]].message


def test_what_is_permanent() -> None:
    assert is_permanent(550, b"5.1.1 unknown")
    assert is_permanent(553, b"bad name")
    assert not any(
        [is_permanent(450, b""), is_permanent(530, b""), is_permanent(554, b"5.7.1 no"), is_permanent(421, b"")]
    )


# The notifier over restarts -------------------------------------------------------------------------------


class Notifier:
    """The real parts, a clock of the test's; each ``turn`` is a process of its own."""

    def __init__(self, folder: Path, mail: Mail) -> None:
        self.outbox, self.state = folder / "outbox", folder / "state"
        self.outbox.mkdir()
        self.state.mkdir()
        self.mail = mail
        self.log = Recorder()
        self.clock = SetClock()

    async def turn(self, seconds: float = 10.0) -> bool:
        """Whether it ended by itself: nothing is pending any more."""
        mailer = SmtpMailer(self.mail, clock=self.clock, deadlines=DEADLINES)
        ports = NotifierPorts(
            outbox=OutboxFolder(self.outbox, self.log),
            ledger=DeliveredLedger(self.state, self.log),
            couriers=(mailer,),
            log=self.log,
            clock=self.clock,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(deliver_all(ports, stop=stop, poll_seconds=0.05))
        done, _ = await asyncio.wait({task}, timeout=seconds)
        stop.set()
        await asyncio.wait_for(task, 10)
        return bool(done)

    async def put(self, run_id: str = "r1") -> None:
        await OutboxFolder(self.outbox, self.log).put(make_report(run_id))


async def test_refused_then_taken_exactly_once_over_restarts(
    serve: Callable[..., int], post: Post, tmp_path: Path
) -> None:
    notifier = Notifier(tmp_path, make_mail(port=serve(), to=["a@x.org", "b@x.org"]))
    await notifier.put()
    post.answer_data = lambda server: "451 4.3.0 try later"
    for attempts in (1, 2, 3):
        assert not await notifier.turn(0.5)
        assert post.attempts == attempts
        assert not await notifier.turn(0.3), "a restart alone does not hammer"
        assert post.attempts == attempts
        notifier.clock.move_on(hours=1)
    post.answer_data = lambda server: "250 taken"
    post.answer_recipient = lambda address: "450 busy" if address == "b@x.org" else "250 OK"
    assert not await notifier.turn(0.5)
    post.answer_recipient = lambda address: "250 OK"
    notifier.clock.move_on(hours=5)
    assert await notifier.turn()
    assert post.recipients == [["a@x.org"], ["b@x.org"]]
    assert len({message["Message-ID"] for message in post.mails}) == 1
    await notifier.put()  # the daemon crashed before it had noted that it handed the outcome on
    assert await notifier.turn()
    assert len(post.mails) == 2
    assert list(notifier.outbox.iterdir()) == []
    assert notifier.log.events().count(Event.DELIVERED) == 2


async def test_nobody_listens_and_then_somebody_does(serve: Callable[..., int], post: Post, tmp_path: Path) -> None:
    notifier = Notifier(tmp_path, make_mail(port=_free_port()))
    await notifier.put("r1")
    await notifier.put("r2")
    assert not await notifier.turn(0.5)
    notifier.mail = make_mail(port=serve())
    notifier.clock.move_on(minutes=2)
    assert await notifier.turn()
    assert len(post.mails) == 2


async def test_a_stop_waits_for_the_message_on_its_way(serve: Callable[..., int], post: Post, tmp_path: Path) -> None:
    def slow(server: SMTP) -> str:
        time.sleep(0.5)  # the server has a thread of its own
        return "250 taken"

    post.answer_data = slow
    notifier = Notifier(tmp_path, make_mail(port=serve()))
    await notifier.put()
    assert not await notifier.turn(0.2), "told to stop in the middle"
    assert len(post.mails) == 1
    post.answer_data = lambda server: "250 taken"
    assert await notifier.turn()
    assert len(post.mails) == 1
