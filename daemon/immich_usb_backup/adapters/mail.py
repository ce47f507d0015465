"""Mail through an SMTP server: blocking, in a thread, with a deadline for every step.

STARTTLS, once chosen, is never done without; certificates are always checked. The password is read for each delivery
and appears in no message.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from immich_usb_backup.adapters.mail_template import ascii_address, compose, to_wire
from immich_usb_backup.adapters.secret_files import THEN_RESTART, first_line
from immich_usb_backup.adapters.threads import Pulse, in_thread
from immich_usb_backup.config import Mail
from immich_usb_backup.errors import DeliveryFailed
from immich_usb_backup.policy import delivery
from immich_usb_backup.policy.news import Begun, News
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import Clock

CREDENTIAL = "smtp-password"
"""The name for ``LoadCredential=`` in the notifier's unit."""

_TRANSPORT_ERRORS = (OSError, smtplib.SMTPException, ssl.SSLError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds. A server that looks through a message for viruses takes its time before the last yes: a deadline that
    is too short there tells people twice."""

    connect: float = 20.0
    command: float = 60.0
    last_reply: float = 300.0
    overall: float = 420.0


@dataclass(frozen=True, slots=True)
class _Letter:
    """What goes over the wire: addresses as the server takes them, each with its channel."""

    sender: str
    recipients: Mapping[str, str]
    content: bytes


class SmtpMailer:
    """Implements ``notifier.Courier``; a channel is an address. ``credentials`` is systemd's ``$CREDENTIALS_DIRECTORY``,
    where there is one."""

    in_order = False

    def __init__(
        self, mail: Mail, *, clock: Clock, credentials: Path | None = None, deadlines: Deadlines | None = None
    ) -> None:
        self._mail = mail
        self._clock = clock
        self._credentials = credentials
        self._deadlines = deadlines or Deadlines()

    async def channels(self, news: News) -> tuple[str, ...]:
        """Whom the configuration wants to be told."""
        wanted = delivery.for_people(news, self._mail.on)
        return tuple(dict.fromkeys(map(delivery.mail_channel, self._mail.to))) if wanted else ()

    async def deliver(self, news: News, channels: Sequence[str]) -> Mapping[str, DeliveryFailed]:
        """One mail to all of them; returns who was refused. Raises ``DeliveryFailed``, ``DeadlineMissed``: nobody has it."""
        assert not isinstance(news, Begun), "nobody is mailed about that"
        content = to_wire(compose(news, self._mail, now=self._clock.now()))
        recipients = {ascii_address(delivery.mail_address(channel)): channel for channel in channels}
        letter = _Letter(ascii_address(self._mail.sender), recipients, content)
        return await in_thread(
            lambda pulse: self._send(letter, pulse),
            what=f"Mail through {printable(self._mail.host)}",
            stall_seconds=self._deadlines.overall + self._deadlines.connect,
        )

    def _send(self, letter: _Letter, pulse: Pulse) -> Mapping[str, DeliveryFailed]:
        password = self._password()
        try:
            with self._connected() as server, _cut_off_after(server, self._deadlines.overall):
                self._secure(server)
                self._log_in(server, password)
                pulse.beat()  # a look-up of a name can outlast every deadline: nobody may wait for us any more
                refused = self._hand_over(server, letter)
                _say_goodbye(server)
                return refused
        except _TRANSPORT_ERRORS as error:
            raise self._explained(error) from error

    def _password(self) -> str | None:
        """Raises ``DeliveryFailed`` where there should be one and is none."""
        if self._mail.username is None:
            return None
        path = self._mail.password_file or (self._credentials / CREDENTIAL if self._credentials else None)
        if path is None:
            raise DeliveryFailed(
                "There is a mail.username and no password.",
                hint=f"Set mail.password_file, or give the notifier's unit a LoadCredential={CREDENTIAL}:/path. {THEN_RESTART}",
            )
        return first_line(path, what="mail password")

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        host, port, seconds = self._mail.host, self._mail.effective_port, self._deadlines.connect
        if self._mail.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=seconds, context=self._trust())
        else:
            server = smtplib.SMTP(host, port, timeout=seconds)
        try:
            _set_timeout(server, self._deadlines.command)
            yield server
        finally:
            server.close()

    def _trust(self) -> ssl.SSLContext:
        """Checks certificate and host name. Raises ``DeliveryFailed`` for a bad ``ca_file``."""
        ca_file = self._mail.ca_file
        try:
            return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except OSError as error:  # also what OpenSSL says about its content
            raise DeliveryFailed(
                f"The certificates in {ca_file} cannot be used: {printable(error.strerror or str(error))}.",
                hint=f"mail.ca_file must be a readable PEM file. {THEN_RESTART}",
            ) from error

    def _secure(self, server: smtplib.SMTP) -> None:
        if self._mail.security != "starttls":
            return
        context = self._trust()
        server.ehlo_or_helo_if_needed()
        if not server.has_extn("starttls"):
            raise DeliveryFailed(
                f"{self._at} does not offer STARTTLS; nothing was sent.",
                hint=f'Is the port right? With port 465 use security = "tls". {THEN_RESTART}',
            )
        code, reply = server.starttls(context=context)
        if code != 220:  # smtplib goes on in the clear
            raise smtplib.SMTPResponseException(code, reply)

    def _log_in(self, server: smtplib.SMTP, password: str | None) -> None:
        if self._mail.username is None or password is None:
            return
        try:
            server.login(self._mail.username, password)
        except UnicodeError:
            raise DeliveryFailed(
                "The mail user name or password has letters that are not ASCII.", hint="SMTP cannot carry them here."
            ) from None  # the error holds the password
        except smtplib.SMTPNotSupportedError as error:
            raise DeliveryFailed(
                f"{self._at} offers no log-in.",
                hint=f'Many servers offer it only with security = "starttls" or "tls"; or remove mail.username. {THEN_RESTART}',
            ) from error

    def _hand_over(self, server: smtplib.SMTP, letter: _Letter) -> Mapping[str, DeliveryFailed]:
        server.ehlo_or_helo_if_needed()
        code, reply = server.mail(letter.sender)
        if code != 250:
            raise smtplib.SMTPSenderRefused(code, reply, letter.sender)
        refused = {}
        for address, channel in letter.recipients.items():
            code, reply = server.rcpt(address)
            if code not in {250, 251}:
                refused[channel] = _refusal(delivery.mail_address(channel), code, reply)
        if len(refused) < len(letter.recipients):
            _set_timeout(server, self._deadlines.last_reply)
            code, reply = server.data(letter.content)
            if code != 250:
                raise smtplib.SMTPDataError(code, reply)
        return refused

    @property
    def _at(self) -> str:
        return f"The mail server {printable(self._mail.host)}:{self._mail.effective_port}"

    def _explained(self, error: OSError | smtplib.SMTPException) -> DeliveryFailed:
        what, hint = _explanation(error)
        return DeliveryFailed(f"{self._at} {what}.", hint=f"{hint} {THEN_RESTART}" if hint else "")


@contextmanager
def _cut_off_after(server: smtplib.SMTP, seconds: float) -> Iterator[None]:
    """A server that sends a byte now and then misses no deadline of a single read: this one counts them all."""
    timer = threading.Timer(seconds, _cut_off, [server])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut_off(server: smtplib.SMTP) -> None:
    connection = server.sock
    if connection is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _set_timeout(server: smtplib.SMTP, seconds: float) -> None:
    if server.sock is not None:
        server.sock.settimeout(seconds)


def _say_goodbye(server: smtplib.SMTP) -> None:
    """The message is theirs already: whatever happens now changes nothing."""
    _set_timeout(server, 5.0)
    with suppress(*_TRANSPORT_ERRORS):
        server.quit()


def _refusal(name: str, code: int, reply: bytes) -> DeliveryFailed:
    return DeliveryFailed(
        f"The mail server refused {printable(name)}: {_words(code, reply)}.",
        permanent=is_permanent(code, reply),
        hint="Is the address in mail.to right, and may this server send to it (mail.username, mail.from)?",
    )


def is_permanent(code: int, reply: bytes) -> bool:
    """Whether a recipient will never be taken. What a log-in or another sender might change (5.7.x) can be mended."""
    return 500 <= code < 600 and code not in {530, 535} and not reply.lstrip().startswith(b"5.7.")


def _words(code: int, reply: bytes | str) -> str:
    return f"{code} {printable(b' '.join(reply.split()) if isinstance(reply, bytes) else reply)}"


def _explanation(error: OSError | smtplib.SMTPException) -> tuple[str, str]:
    """What a person should know: the rest of a sentence about the server, and what to do."""
    if isinstance(error, smtplib.SMTPException):
        return _protocol_explanation(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not trusted: {printable(error.verify_message)}",
            "Is mail.host the name in the certificate? For a certificate of your own set mail.ca_file.",
        )
    if isinstance(error, ssl.SSLError):
        return f"and we cannot agree on TLS: {printable(error.reason or str(error))}", _PORT_HINT
    for kind, (what, hint) in _NETWORK.items():
        if isinstance(error, kind):
            return what, hint
    return f"cannot be reached: {printable(error.strerror or str(error))}", "Is there a network, and a route to it?"


_PORT_HINT = 'Do mail.port and mail.security fit? Usual are 587 with "starttls" and 465 with "tls".'
_NETWORK: Mapping[type[OSError], tuple[str, str]] = {
    socket.gaierror: ("cannot be found: there is no such name", "Is mail.host right, and does this machine have DNS?"),
    ConnectionRefusedError: ("refused the connection", f"{_PORT_HINT} Does the server run?"),
    TimeoutError: ("did not answer in time", f"{_PORT_HINT} Does a firewall stand between?"),
    ConnectionResetError: ("broke the connection off", _PORT_HINT),
}


def _protocol_explanation(error: smtplib.SMTPException) -> tuple[str, str]:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return (
            f"refused the log-in: {_words(error.smtp_code, error.smtp_error)}",
            "Check mail.username and the password; many providers want an app password here.",
        )
    if isinstance(error, smtplib.SMTPSenderRefused):
        return (
            f"refused the sender {printable(error.sender)}: {_words(error.smtp_code, error.smtp_error)}",
            "Set mail.from to an address that this account may use.",
        )
    if isinstance(error, smtplib.SMTPResponseException):
        return f"refused: {_words(error.smtp_code, error.smtp_error)}", ""
    if isinstance(error, smtplib.SMTPServerDisconnected):
        if isinstance(error.__context__, TimeoutError):  # smtplib makes one of the other
            return _NETWORK[TimeoutError]
        return "closed the connection before it took the mail", _PORT_HINT
    return f"is not understood: {printable(str(error))}", _PORT_HINT
