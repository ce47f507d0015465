"""The opt-in marker, whatever a person, an operating system or an attacker puts on a disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.model import BACKUP_FOLDER, Marker
from immich_usb_backup.policy.marker import (
    MarkerText,
    decode,
    disk_name,
    encode,
    find_marker,
    has_folder_name,
    is_enrolled_marker,
    marker_files,
)
from immich_usb_backup.policy.text import printable

NAME = BACKUP_FOLDER


@pytest.mark.parametrize(
    ("entry", "folder"),
    [
        (NAME, True),
        (NAME, False),
        (f"{NAME}.txt", False),
        (f"{NAME}.toml", False),
        ("Immich-Server-Backups", True),
        ("IMMICH-SERVER-BACKUPS.TXT", False),
    ],
)
def test_a_folder_or_a_file_with_or_without_ending_is_a_marker(entry: str, folder: bool) -> None:
    assert find_marker([("DCIM", True), (entry, folder)]) == Marker(entry=entry, is_folder=folder)


@pytest.mark.parametrize(
    ("entry", "folder"),
    [
        (f"{NAME}.txt", True),
        (f"{NAME}.doc", False),
        (f"{NAME}.txt.txt", False),
        (f" {NAME}", False),
        (f"{NAME} ", True),
        (f"{NAME}\n", True),
        (f"{NAME}\n.txt", False),
        (f"x{NAME}", True),
        (f"./{NAME}", True),
        (f"{NAME}\0", True),
        ("", True),
        ("\udcff", False),
    ],
)
def test_what_only_resembles_it_is_none(entry: str, folder: bool) -> None:
    assert find_marker([(entry, folder)]) is None


def test_a_folder_comes_before_files_and_the_files_may_name_the_disk() -> None:
    entries = [(f"{NAME}.toml", False), (NAME, True), (f"{NAME}.TXT", False), ("other.txt", False)]
    assert find_marker(entries) == Marker(entry=NAME, is_folder=True)
    assert marker_files(entries) == (f"{NAME}.TXT", f"{NAME}.toml")


def test_only_a_file_without_ending_stands_where_the_folder_must_be() -> None:
    assert has_folder_name(Marker(entry="Immich-server-backups", is_folder=False))
    assert not has_folder_name(Marker(entry=f"{NAME}.txt", is_folder=False))
    assert not has_folder_name(Marker(entry=NAME, is_folder=True))


@pytest.mark.parametrize(
    "content",
    [
        b'name = "Blue"',
        b'\xef\xbb\xbfname = "Blue"\r\n',
        b'# my disk\r\n\r\nname = "  Blue  "\r\nother = [1,\r\n2]\r\n',
        b"name = 'Blue'",
    ],
)
def test_the_name_is_read_as_windows_and_unix_write_it(content: bytes) -> None:
    assert disk_name(content) == "Blue"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xef\xbb\xbf",
        b'name = "Bl',
        b"name = ",
        b"name = 5",
        b'name = ""',
        b'name = "  "',
        b'name = ["Blue"]',
        b'[name]\nx = "Blue"',
        b'name = "a"\nname = "b"',
        b"\xff\xfen\0a\0m\0e\0",
        b"\0" * 1000,
        b"\x89PNG\r\n\x1a\n",
        b'name = "\xff"',
        b"x = " + b"[" * 60_000,
        b"x = " + b"1" * 5000,
        b"x = 2026-13-45",
        b'name = "' + b"x" * 100_000,
    ],
)
def test_foreign_and_half_written_contents_are_no_error(content: bytes) -> None:
    assert disk_name(content) is None


def test_a_name_is_shown_harmlessly_and_never_long() -> None:
    assert disk_name(b'name = "a\\nb\\u001b[2J\\u202e"') == "a\\nb\\u001b[2J\\u202e"
    name = disk_name(b'name = "' + b"x" * 1000 + b'"')
    assert name is not None
    assert len(name) == 60


@given(st.binary(max_size=300) | st.text().map(lambda text: f'name = "{text}"'.encode("utf-8", "surrogatepass")))
def test_no_content_raises(content: bytes) -> None:
    name = disk_name(content)
    assert name is None or (printable(name) == name and 0 < len(name) <= 60)


SECRET = "0123456789abcdef" * 4


@pytest.mark.parametrize("name", ["Blue", 'a"b', "a\\b", "\u00e9\U0001f600", "'", "[x]", "# no", "{disk}", 'a\\"b\\'])
def test_what_enroll_writes_is_read_back_whatever_the_name(name: str) -> None:
    assert decode(encode(MarkerText(name, SECRET))) == MarkerText(name, SECRET)


@given(st.text(min_size=1, max_size=60).filter(lambda text: printable(text) == text == text.strip()))
def test_every_name_that_can_be_shown_comes_back(name: str) -> None:
    assert decode(encode(MarkerText(name, SECRET))) == MarkerText(name, SECRET)


@pytest.mark.parametrize(
    "secret", ["", "ab", SECRET.upper(), SECRET + "00", f" {SECRET}", SECRET[:-1] + "g", SECRET + "\\n"]
)
def test_a_secret_of_another_form_is_none(secret: str) -> None:
    assert decode(f'name = "Blue"\nsecret = "{secret}"\n'.encode()) == MarkerText("Blue", "")


@pytest.mark.parametrize("length", range(len(encode(MarkerText("Blue", SECRET)))))
def test_a_marker_cut_off_anywhere_has_no_secret(length: int) -> None:
    """But for its last character, which is a line end."""
    whole = encode(MarkerText("Blue", SECRET))
    assert decode(whole[:length]).secret == ("" if length < len(whole) - 1 else SECRET)


def test_a_secret_is_in_no_trace() -> None:
    assert SECRET not in repr(decode(encode(MarkerText("Blue", SECRET))))
    assert SECRET not in repr(Marker(entry=NAME, is_folder=True, secret=SECRET))


def test_only_the_file_that_enroll_makes_may_hold_it() -> None:
    assert is_enrolled_marker(f"{NAME}.TOML")
    assert not any(map(is_enrolled_marker, (NAME, f"{NAME}.txt", f"{NAME}/marker.toml", f"{NAME}.toml.partial")))
