"""The configuration as a zip: equal content, equal bytes; what cannot be read is named and the rest is kept."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from tests.support.fakes import Memory

from immich_usb_backup.adapters import archive as packing
from immich_usb_backup.adapters.archive import write_archive
from immich_usb_backup.ports import ArchiveResult


def _zip(*paths: Path) -> tuple[dict[str, bytes], ArchiveResult, bytes]:
    """What is in it (paths below the test's folder), what was said, and its bytes."""
    sink = Memory()
    result = write_archive(paths, sink)
    with zipfile.ZipFile(io.BytesIO(sink.data)) as archive:
        assert archive.testzip() is None
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    assert b"To bring Immich back" in content.pop("readme.txt")
    assert len(content) == result.files
    return content, result, sink.data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "etc/sub").mkdir(parents=True)
    (tmp_path / "etc/b.nix").write_text("b")
    (tmp_path / "etc/a.nix").write_text("a")
    (tmp_path / "etc/sub/c.nix").write_text("c")
    return tmp_path / "etc"


def _name(path: Path) -> str:
    return str(path).lstrip("/")


def test_files_keep_their_whole_path(folder: Path) -> None:
    content, result, _ = _zip(folder)
    assert content == {
        _name(folder / "a.nix"): b"a",
        _name(folder / "b.nix"): b"b",
        _name(folder / "sub/c.nix"): b"c",
    }
    assert result.unreadable == ()


def test_the_same_content_gives_the_same_bytes_in_whatever_order_it_is_named(folder: Path) -> None:
    first = _zip(folder / "a.nix", folder)[2]
    assert _zip(folder, folder / "a.nix")[2] == first
    (folder / "a.nix").write_text("A")
    os.utime(folder / "a.nix", (0, 0))
    assert _zip(folder)[2] != first


def test_a_link_is_followed_and_a_loop_ends(folder: Path, tmp_path: Path) -> None:
    (folder / "sub/loop").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (tmp_path / "outside").write_text("o")
    (folder / "link").symlink_to(tmp_path / "outside")
    content, result, _ = _zip(folder)
    assert content[_name(folder / "link")] == b"o"
    assert len(content) == 4
    assert [path for path, _ in result.unreadable] == [os.fsencode(folder / "self")]


def test_a_link_to_what_nix_has_built_is_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nixos-rebuild build` leaves one to a whole system, `result`. What is named itself is packed."""
    monkeypatch.setattr(packing, "_NIX_STORE", tmp_path / "store")
    for name in ("abc-system/sw", "def-source/sub"):
        (tmp_path / "store" / name).mkdir(parents=True)
        (tmp_path / "store" / name / "file").write_text("f")
    (tmp_path / "store/abc-system/sw/large").write_text("l")
    (folder / "result").symlink_to(tmp_path / "store/abc-system")
    (folder / "one").symlink_to(tmp_path / "store/abc-system/sw/file")
    (tmp_path / "store/def-source/inside").symlink_to("sub")
    (tmp_path / "named").symlink_to(tmp_path / "store/def-source")
    content, result, _ = _zip(folder, tmp_path / "named")
    packed = {_name(folder / "one"), _name(tmp_path / "named/inside/file")}
    assert content.keys() == {_name(folder / name) for name in ("a.nix", "b.nix", "sub/c.nix")} | packed
    assert result.unreadable == ()


def test_what_cannot_be_read_is_named_and_the_rest_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "broken").symlink_to("/nowhere")
    os.mkfifo(folder / "fifo")
    missing = folder / "missing"
    real = Path.open

    def refuse(self: Path, *arguments: object) -> object:
        if self.name == "b.nix":
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    content, result, _ = _zip(folder, missing)
    assert sorted(content) == [_name(folder / "a.nix"), _name(folder / "sub/c.nix")]
    assert {Path(os.fsdecode(path)).name: reason for path, reason in result.unreadable} == {
        "b.nix": "Permission denied",
        "broken": "No such file or directory",
        "fifo": "it is no plain file",
        "missing": "No such file or directory",
    }


@pytest.mark.parametrize("seconds", [-(10**9), 0, 315_532_799, 4_354_819_200, 10**11])
def test_times_that_no_zip_can_hold_are_no_error(folder: Path, seconds: int) -> None:
    os.utime(folder / "a.nix", (seconds, seconds))
    assert len(_zip(folder)[0]) == 3


@pytest.mark.parametrize("name", [b"new\nline", b"caf\xe9", b"x" * 255, b"back\\slash", b"C:", b" ", "é".encode()])
def test_hostile_names_are_packed(folder: Path, name: bytes) -> None:
    (folder / os.fsdecode(name)).write_bytes(b"hostile")
    content, result, _ = _zip(folder)
    assert b"hostile" in content.values()
    assert result.unreadable == ()


def test_nothing_at_all_is_a_valid_zip() -> None:
    assert _zip()[0] == {}


def test_the_order_in_which_the_file_system_lists_does_not_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _zip(folder)[2]
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self), reverse=True)))
    backwards = _zip(folder)[2]
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self))))
    assert _zip(folder)[2] == backwards == first
