"""Asks Immich itself to make a dump, by its HTTP API, and waits until its job is over.

No number of a job comes back and successes leave no trace, so this learns only that the queue has come to its end without a
new failure. Whether a new dump is there, the daemon finds out: this process may not see Immich's files.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from immich_usb_backup.errors import FreshDumpFailed
from immich_usb_backup.policy.text import duration

_REQUEST_SECONDS = 30.0
_LONGEST_ANSWER = 1 << 20
_PAUSE_SECONDS = 1.0

_QUEUE, _ALL_QUEUES, _JOBS = "/queues/backupDatabase", "/jobs", "/jobs"
_KEY = (
    "It must be a key of an administrator, with the permissions job.create and queue.read (job.read before Immich 2.3)"
)


@dataclass(frozen=True, slots=True)
class _Queue:
    """How it stands with Immich's jobs that make dumps. ``failed`` counts those of earlier days, too."""

    open: int
    failed: int
    paused: bool


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key must not follow a redirect to somebody else."""

    def redirect_request(self, *_: Any) -> None:
        """Never."""


class ImmichApi:
    """Immich at an address. ``pause`` waits between two looks."""

    def __init__(self, url: str, key: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._base = url.rstrip("/").removesuffix("/api") + "/api"
        self._key = key
        self._pause = pause
        self._old = False
        # No proxy from the environment: the key goes to this address only.
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))

    def make_dump(self, *, seconds: float) -> None:
        """Have a dump made, and wait for the end of the job. Raises ``FreshDumpFailed``."""
        if not self._key:
            raise FreshDumpFailed("There is no API key: it belongs into database.api_key_file")
        deadline = time.monotonic() + seconds
        before = self._queue()
        if before.paused:
            raise FreshDumpFailed("Immich's queue for database backups is paused (Administration, Job Queues)")
        self._ask("POST", _JOBS, {"name": "backup-database"})
        while (now := self._queue()).open:
            if time.monotonic() > deadline:
                raise FreshDumpFailed(f"Immich did not finish its dump within {duration(seconds)}")
            if now.paused:
                raise FreshDumpFailed("Immich's queue for database backups was paused")
            self._pause(_PAUSE_SECONDS)
        if now.failed > before.failed:
            raise FreshDumpFailed("Immich's own job for the dump failed; its log says why")

    def _queue(self) -> _Queue:
        """Raises ``FreshDumpFailed``."""
        answer = None if self._old else self._ask("GET", _QUEUE)
        if answer is None:  # before 2.3
            self._old = True
            queues = self._ask("GET", _ALL_QUEUES)
            answer = queues.get("backupDatabase") if queues else None
        return _queue(answer)

    def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any] | None:
        """The answer, None for a page that this Immich does not have. Raises ``FreshDumpFailed``."""
        request = urllib.request.Request(  # noqa: S310  # the configuration takes http and https only
            self._base + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"x-api-key": self._key, "content-type": "application/json", "accept": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=_REQUEST_SECONDS) as answer:
                return _parsed(answer.read(_LONGEST_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.NOT_FOUND and method == "GET":
                    return None
                raise self._refused(error.code) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise FreshDumpFailed(f"Immich at {self._base} does not answer: {reason}") from error

    def _refused(self, code: int) -> FreshDumpFailed:
        if code in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}:
            return FreshDumpFailed(f"Immich does not accept the API key ({code}). {_KEY}")
        return FreshDumpFailed(f"Immich at {self._base} answers with an error ({code}). Is database.api_url right?")


def _parsed(content: bytes) -> dict[str, Any]:
    if not content.strip():
        return {}
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _not_immich() from error
    if not isinstance(answer, dict):
        raise _not_immich()
    return answer


def _queue(answer: dict[str, Any] | None) -> _Queue:
    """From the new form (``statistics``) or the old one (``jobCounts``)."""
    try:
        found = answer or {}
        counts = found["statistics"] if "statistics" in found else found["jobCounts"]
        status = found if "statistics" in found else found["queueStatus"]
        waiting = sum(int(counts[name]) for name in ("active", "waiting", "delayed", "paused"))
        return _Queue(open=waiting, failed=int(counts["failed"]), paused=bool(status["isPaused"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _not_immich() from error


def _not_immich() -> FreshDumpFailed:
    return FreshDumpFailed("What answers at database.api_url is not an Immich that this version knows")
