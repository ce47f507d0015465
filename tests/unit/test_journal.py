"""What reaches the journal: real fields over a real datagram socket, whatever the values hold."""

from __future__ import annotations

import array
import io
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from immich_usb_backup.adapters.journal import (
    HumanOutput,
    JournalOutput,
    JsonOutput,
    encode_entry,
    journal_fields,
    make_log,
)
from immich_usb_backup.events import Event


def _decode(raw: bytes) -> dict[str, bytes]:
    """As journald reads it."""
    fields: dict[str, bytes] = {}
    while raw:
        line, _, rest = raw.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        fields[name.decode("ascii")] = value
        raw = rest
    return fields


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        server.settimeout(10)
        yield server


@pytest.fixture
def output(journald: socket.socket) -> Iterator[JournalOutput]:
    output = JournalOutput(journald.getsockname())
    yield output
    output._socket.close()


def _receive(server: socket.socket) -> tuple[bytes, bool]:
    """An entry, and whether it came as a file."""
    data, ancillary, _, _ = server.recvmsg(1 << 22, socket.CMSG_SPACE(4))
    if not ancillary:
        return data, False
    (descriptor,) = array.array("i", ancillary[0][2])
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read(), True


@pytest.mark.parametrize("value", ["plain", "two\nlines", "", "=", "\n", "é", "x\n" * 1000])
def test_every_value_comes_back(value: str) -> None:
    assert _decode(encode_entry({"A": value, "MESSAGE": "m"})) == {"A": value.encode(), "MESSAGE": b"m"}


def test_bytes_that_are_no_text_are_kept_and_other_surrogates_do_not_raise() -> None:
    assert _decode(encode_entry({"A": "caf\udce9"}))["A"] == b"caf\xe9"
    assert _decode(encode_entry({"A": "x\ud800"}))["A"] == b"x\\ud800"


def test_fields_have_our_prefix_and_the_well_known_ones_their_names() -> None:
    fields = journal_fields(
        {"event": "Hello", "level_number": 40, "message_id": "f" * 32, "code": "run-ok", "free-bytes": 5, "none": None}
    )
    assert fields == {
        "MESSAGE": "Hello",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "immich-usb-backup",
        "MESSAGE_ID": "f" * 32,
        "IMMICH_BACKUP_EVENT": "run-ok",
        "IMMICH_BACKUP_FREE_BYTES": "5",
    }


def test_an_entry_arrives(journald: socket.socket, output: JournalOutput) -> None:
    output(None, "info", {"event": "Hello", "run": "1", "items": ("a", "b")})
    raw, by_file = _receive(journald)
    assert not by_file
    assert _decode(raw)["IMMICH_BACKUP_RUN"] == b"1"
    assert _decode(raw)["IMMICH_BACKUP_ITEMS"] == b"a\nb"


def test_what_is_larger_than_a_datagram_comes_as_a_sealed_file(journald: socket.socket, output: JournalOutput) -> None:
    trace = "x" * (5 << 20)
    output(None, "error", {"event": "Bug", "trace": trace})
    raw, by_file = _receive(journald)
    assert by_file
    assert _decode(raw)["IMMICH_BACKUP_TRACE"] == trace.encode()


def test_without_a_journal_the_sentence_goes_to_standard_error(
    tmp_path: Path, output: JournalOutput, capfd: pytest.CaptureFixture[str]
) -> None:
    output._path = str(tmp_path / "nobody")
    output(None, "info", {"event": "Hello"})
    assert capfd.readouterr().err == "Hello\n"


def test_a_full_journal_does_not_hold_a_backup_up(output: JournalOutput, capfd: pytest.CaptureFixture[str]) -> None:
    output._socket.settimeout(0)
    while not capfd.readouterr().err:
        output(None, "info", {"event": "x" * 100_000})


def test_people_and_programs_get_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = make_log(level="info", form="json")
    log.say(Event.DISK_REMOVED, disk="Bl\udcffue", uuid="1", device="/dev/sda1", path=Path("/x"), raw=b"\xff")
    log.say(Event.DISK_IRRELEVANT, device="/dev/sdb", reasons="x")
    (line,) = capsys.readouterr().out.splitlines()
    entry = json.loads(line)
    assert (entry["code"], entry["message_id"]) == ("disk-removed", Event.DISK_REMOVED.kind.message_id)
    assert entry["event"] == "'Bl\\xffue' was unplugged"
    make_log(level="debug", form="human").say(Event.DISK_IRRELEVANT, device="/dev/sdb", reasons="x")
    assert capsys.readouterr().out.endswith(" Ignored /dev/sdb: x\n")


@pytest.mark.parametrize("output", [HumanOutput, JsonOutput])
def test_a_reader_that_went_away_is_no_reason_to_stop(output: type[HumanOutput] | type[JsonOutput]) -> None:
    read, write = os.pipe()
    os.close(read)
    stream = io.TextIOWrapper(io.FileIO(write, "w"), write_through=True)
    output(stream)(None, "info", {"event": "Hello"})
    stream.detach().close()
