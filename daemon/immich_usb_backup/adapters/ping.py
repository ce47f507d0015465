"""A monitor that is pinged: Healthchecks, or what understands the same requests.

``URL/start`` when a run begins, ``URL`` when it ended well and ``URL/fail`` when it did not, with the headline in the
body. The address is a secret: no message shows more of it than the host.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from immich_usb_backup.adapters.secret_files import THEN_RESTART, first_line
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.config import Ping, ping_address
from immich_usb_backup.errors import BackupError, DeliveryFailed
from immich_usb_backup.model import Notice, Outcome
from immich_usb_backup.policy import delivery
from immich_usb_backup.policy.letters import letter_of
from immich_usb_backup.policy.news import Begun, Ended, News
from immich_usb_backup.policy.text import printable

CREDENTIAL = "ping-url"
"""The name for ``LoadCredential=`` in the notifier's unit."""

_WHAT = "ping address"
_LONGEST_BODY = 10_000
_CALM = "The backup itself is not touched by this."
_ELSEWHERE = f"Write the address that it leads to into the configuration (often https instead of http). {THEN_RESTART}"
_RUNS = uuid.UUID("5b0f2f6e-6c2b-4d0e-9b57-0d3e35f1c9d4")
"""The name space of the runs' UUIDs, by which a monitor knows the end that belongs to a beginning."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn our POST into a GET, and hand the secret on."""

    def redirect_request(self, *_: object) -> None:
        """Never."""


class Pinger:
    """Implements ``notifier.Courier``: one channel. ``credentials`` is systemd's ``$CREDENTIALS_DIRECTORY``, where there is
    one; ``seconds`` is how long one step may take."""

    in_order = True

    def __init__(self, ping: Ping, *, credentials: Path | None = None, seconds: float = 20.0) -> None:
        self._ping = ping
        self._credentials = credentials
        self._seconds = seconds
        self._opener = urllib.request.build_opener(_NoRedirect)

    async def channels(self, news: News) -> tuple[str, ...]:
        """The monitor, for all that a run does."""
        return () if isinstance(news, Notice) else (delivery.PING,)

    async def deliver(self, news: News, channels: Sequence[str]) -> Mapping[str, BackupError]:
        """Ping. Raises ``DeliveryFailed``, ``DeadlineMissed``."""
        del channels  # there is one
        assert not isinstance(news, Notice), "no monitor is told that"
        await in_thread(lambda _: self._send(news), what="The ping", stall_seconds=3 * self._seconds)
        return {}

    def _send(self, news: Ended | Begun) -> None:
        address = self._address()
        body = _body(news).encode("utf-8", "backslashreplace")[:_LONGEST_BODY]
        headers = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "immich-usb-backup"}
        request = urllib.request.Request(_url(address, news), data=body, headers=headers, method="POST")  # noqa: S310  # http(s) alone
        at = f"The monitor at {printable(address.hostname or '')}"
        try:
            self._opener.open(request, timeout=self._seconds).close()
        except urllib.error.HTTPError as error:
            error.close()
            raise _refused(at, error.code) from None  # the error holds the address
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryFailed(f"{at} {_problem(error)}.", hint=_CALM) from None

    def _address(self) -> SplitResult:
        """Raises ``DeliveryFailed``."""
        if self._ping.url is not None:
            return urlsplit(self._ping.url)
        path = self._ping.url_file or (self._credentials / CREDENTIAL if self._credentials else None)
        if path is None:
            raise DeliveryFailed(
                "There is a [ping] section and no address.",
                hint=f"Set ping.url_file, or put it into /etc/immich-usb-backup/{CREDENTIAL}. {THEN_RESTART}",
            )
        try:
            return urlsplit(ping_address(first_line(path, what=_WHAT)))
        except ValueError as error:
            raise DeliveryFailed(f"The {_WHAT} in {path} {error}.", hint=THEN_RESTART) from None


def _url(address: SplitResult, news: Ended | Begun) -> str:
    """Where to: the same run has the same ``rid`` at both ends."""
    report = news.report
    end = "/start" if isinstance(news, Begun) else "" if report.outcome is Outcome.OK else "/fail"
    run = uuid.uuid5(_RUNS, printable(f"{report.server}/{report.run_id}"))
    query = "&".join(filter(None, (address.query, f"rid={run}")))
    path = address.path.rstrip("/") + end if end else address.path
    return address._replace(path=path or "/", query=query).geturl()


def _body(news: Ended | Begun) -> str:
    if isinstance(news, Begun):
        return f"Backing up to '{printable(news.report.disk.name)}'"
    letter = letter_of(news)
    return "\n".join((letter.headline, *letter.problems, *letter.since, *letter.todo, *letter.verdict, *letter.facts))


def _refused(at: str, code: int) -> DeliveryFailed:
    if 300 <= code < 400:
        return DeliveryFailed(f"{at} answered that it is at another address ({code}).", hint=_ELSEWHERE)
    if code in {400, 401, 403, 404, 405, 410}:
        hint = f"Is the address right, and does the check still exist? {THEN_RESTART}"
        return DeliveryFailed(f"{at} does not know this address ({code}).", hint=hint)
    return DeliveryFailed(f"{at} answered with the error {code}.", hint=_CALM)


def _problem(error: OSError | http.client.HTTPException) -> str:
    """What a person should know, without the address."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted: {printable(reason.verify_message)}"
    if isinstance(reason, TimeoutError):
        return "did not answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return f"cannot be reached: {printable(reason.strerror)}"
    return "gave an answer that is not understood"
