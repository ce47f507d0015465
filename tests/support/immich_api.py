"""A small server that answers like Immich's API about its job for database dumps."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "the-key-of-an-admin"


@dataclass
class FakeImmich:
    """``old``: before 2.3, one list of all queues. A job takes ``looks`` looks at the queue, then ``makes`` is called; None:
    the job fails. ``answers`` gives a path its own answer: status, content and headers."""

    old: bool = False
    looks: int = 2
    makes: Callable[[], object] | None = lambda: None
    paused: bool = False
    failed_before: int = 3
    answers: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""
    _left: int = 0
    _failed: int = 0

    def look(self) -> dict[str, Any]:
        """The queue as it is now."""
        counts = {"active": 0, "completed": 0, "failed": self.failed_before + self._failed, "delayed": 0}
        counts |= {"waiting": 0, "paused": 0}
        if self._left:
            counts["active" if self._left < self.looks else "waiting"] = 1
            self._left -= 1
            if not self._left:
                self._end()
        if self.old:
            return {"jobCounts": counts, "queueStatus": {"isPaused": self.paused, "isActive": False}}
        return {"name": "backupDatabase", "isPaused": self.paused, "statistics": counts}

    def begin(self) -> None:
        """A job is queued."""
        self._left = self.looks

    def _end(self) -> None:
        if self.makes is None:
            self._failed += 1
        else:
            self.makes()

    def answer(self, method: str, path: str, key: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Status, content, headers."""
        self.asked.append(f"{method} {path}")
        if path in self.answers:
            return self.answers[path]
        if key != KEY:
            return 401, b'{"message":"Invalid API key"}', {}
        if (method, path) == ("POST", "/api/jobs"):
            if json.loads(body) != {"name": "backup-database"}:
                return 400, b"{}", {}
            self.begin()
            return 204, b"", {}
        if (method, path) == ("GET", "/api/jobs") and self.old:
            return 200, json.dumps({"library": {}, "backupDatabase": self.look()}).encode(), {}
        if (method, path) == ("GET", "/api/queues/backupDatabase") and not self.old:
            return 200, json.dumps(self.look()).encode(), {}
        return 404, b'{"message":"Cannot GET"}', {}


@contextlib.contextmanager
def serving(immich: FakeImmich) -> Iterator[FakeImmich]:
    """It listens on this machine, at ``immich.url``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._do()

        def do_POST(self) -> None:
            self._do()

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, content, headers = immich.answer(self.command, self.path, self.headers.get("x-api-key", ""), body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        immich.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield immich
        finally:
            server.shutdown()
            thread.join()
