"""structlog to where it is read: journald's native socket with real fields, a terminal, or JSON lines.

JSON on standard output would be one MESSAGE without fields in the journal. The protocol is systemd's
docs/JOURNAL_NATIVE_PROTOCOL.md: ``NAME=value`` lines, values with newlines length-prefixed, a memfd for what is larger
than a datagram.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import socket
import struct
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog
import structlog.stdlib

from immich_usb_backup.events import Event
from immich_usb_backup.policy.text import fill

JOURNAL_SOCKET = "/run/systemd/journal/socket"
PREFIX = "IMMICH_BACKUP_"
IDENTIFIER = "immich-usb-backup"

Format = Literal["auto", "journal", "human", "json"]

_SEND_SECONDS = 0.5
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_NOT_A_NAME = re.compile(r"[^A-Z0-9_]")


class StructuredLog:
    """The ``Log`` port: an event's sentence and its fields go through structlog to the output."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def say(self, event: Event, **fields: Any) -> None:
        """Write one event; fields bound to the context (the run) come with it."""
        kind = event.kind
        self._logger.log(kind.level, fill(kind.template, fields), code=event.code, message_id=kind.message_id, **fields)


def make_log(*, level: str = "info", form: Format = "auto") -> StructuredLog:
    """Set logging up for this process. ``auto``: the journal when systemd connected us to it, else lines for people."""
    threshold = getattr(logging, level.upper())
    output = _output(form)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level_number, output],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Foreign(output)], level=max(threshold, logging.WARNING), force=True)
    return StructuredLog(structlog.get_logger())


def _output(form: Format) -> Any:
    chosen = form if form != "auto" else "journal" if _connected_to_journal() else "human"
    if chosen == "journal":
        return JournalOutput()
    return JsonOutput(sys.stdout) if chosen == "json" else HumanOutput(sys.stdout)


def _connected_to_journal() -> bool:
    """systemd tells the device and inode of the stream that it connected to the journal."""
    try:
        facts = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"


class _Foreign(logging.Handler):
    """What libraries log, on the same way out."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        fields = {"event": self.format(record), "level_number": record.levelno, "logger": record.name}
        self._output(None, record.levelname.lower(), fields)


class HumanOutput:
    """``03:04:05 sentence`` lines. A reader that went away is no reason to stop backing up."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, _logger: Any, _name: str, fields: dict[str, Any]) -> str:
        """Write one line."""
        mark = {logging.WARNING: "! ", logging.ERROR: "!! "}.get(fields.get("level_number", 0), "")
        _print(self._stream, f"{datetime.now().astimezone():%H:%M:%S} {mark}{fields['event']}")
        return ""


class JsonOutput:
    """One JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, _logger: Any, _name: str, fields: dict[str, Any]) -> str:
        """Write one line."""
        record = {"time": datetime.now().astimezone().isoformat(timespec="milliseconds"), **fields}
        _print(self._stream, json.dumps(record, default=_plain))
        return ""


def _print(stream: TextIO, line: str) -> None:
    try:
        stream.write(line.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
        stream.flush()
    except (OSError, ValueError):
        return


class JournalOutput:
    """journald's native protocol. What the journal does not take goes to standard error, which systemd reads too."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_SEND_SECONDS)

    def __call__(self, _logger: Any, _name: str, fields: dict[str, Any]) -> str:
        """Send one entry."""
        entry = encode_entry(journal_fields(fields))
        try:
            self._send(entry)
        except OSError:
            _print(sys.stderr, str(fields.get("event", "")))
        return ""

    def _send(self, entry: bytes) -> None:
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                raise
            self._send_by_memfd(entry)

    def _send_by_memfd(self, entry: bytes) -> None:
        memory = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(entry)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", memory))]
            self._socket.sendmsg([], rights, 0, self._path)
        finally:
            os.close(memory)


def journal_fields(fields: Mapping[str, Any]) -> dict[str, str]:
    """What an event becomes in the journal: upper-case names with our prefix beside the well-known ones."""
    own = dict(fields)
    entry = {
        "MESSAGE": str(own.pop("event", "")),
        "PRIORITY": str(_PRIORITIES.get(own.pop("level_number", logging.INFO), 6)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    own.pop("level", None)
    if code := own.pop("code", None):
        own["event"] = code
    if message_id := own.pop("message_id", None):
        entry["MESSAGE_ID"] = message_id
    entry |= {PREFIX + _field_name(name): _text(value) for name, value in own.items() if value is not None}
    return entry


def _field_name(name: str) -> str:
    return _NOT_A_NAME.sub("_", name.upper())


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "\n".join(_text(item) for item in value)
    return str(_plain(value)) if not isinstance(value, str | int | float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes | Path):
        return os.fsdecode(value)
    return str(value)


def _bytes(value: str) -> bytes:
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return value.encode("utf-8", "backslashreplace")


def encode_entry(fields: Mapping[str, str]) -> bytes:
    """The wire form. Values with newlines carry their length as 64-bit little-endian."""
    parts: list[bytes] = []
    for name, value in fields.items():
        raw = _bytes(value)
        if b"\n" in raw:
            parts.append(name.encode("ascii") + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(name.encode("ascii") + b"=" + raw + b"\n")
    return b"".join(parts)
