"""``check-file-system`` with the real ``fsck.exfat`` on images with known damage; neither root nor a mount is needed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from immich_usb_backup.__main__ import main
from tests.support.exfat import DIRTY, MEDIA_FAILURE, Exfat, Node

pytestmark = pytest.mark.skipif(
    shutil.which("mkfs.exfat") is None or shutil.which("fsck.exfat") is None, reason="exfatprogs is not installed"
)

CLEAN, UNCLEAN, REPAIRED, DAMAGED, UNKNOWN = 0, 10, 11, 12, 13


@dataclass(frozen=True)
class Stick:
    """A backup and something of the owner's, with the mark of an unclean unmount."""

    image: Exfat
    backups: Node
    upload: Node
    ours: Node
    theirs: Node

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.image.path.read_bytes()).hexdigest()

    def fsck(self) -> str:
        """What a look says when all is over."""
        done = subprocess.run(["fsck.exfat", "-n", self.image.path], capture_output=True, text=True, check=False)
        return done.stdout


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Stick]:
    with Exfat.make(tmp_path / "stick.img") as image:
        backups = image.folder("immich-server-backups")
        upload = image.folder("upload", backups)
        ours = image.file("é.jpg", upload)
        found = Stick(image, backups, upload, ours, image.file("holiday.jpg"))
        image.flags = DIRTY
        yield found


@pytest.fixture
def look(
    stick: Stick, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run the command; returns its exit code and what it printed."""

    monkeypatch.setenv("LC_ALL", "C")  # systemd's services have no locale

    def run(*options: str) -> tuple[int, str]:
        code = main(["check-file-system", str(stick.image.path), *options])
        return code, capfd.readouterr().out.strip()

    return run


Look = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("options", [(), ("--repair",)])
def test_what_was_unmounted_properly_is_clean_without_fsck(
    stick: Stick, look: Look, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stick.image.flags = 0
    stick.image.free(stick.ours)  # which fsck would find
    monkeypatch.setenv("PATH", "/nowhere")
    before = stick.hash
    assert look(*options) == (CLEAN, f"clean: {stick.image.serial}: unmounted properly")
    assert stick.hash == before


def test_a_sound_one_keeps_its_mark_in_a_check(stick: Stick, look: Look) -> None:
    before = stick.hash
    assert look() == (UNCLEAN, f"dirty: {stick.image.serial}: no errors")
    assert stick.hash == before


def test_a_repair_takes_the_mark_off_a_sound_one(stick: Stick, look: Look) -> None:
    assert look("--repair") == (REPAIRED, f"repaired: {stick.image.serial}: no errors")
    assert stick.image.flags == 0
    assert look()[0] == CLEAN


@pytest.mark.parametrize(
    "damage",
    [
        lambda stick: stick.image.free(stick.ours),
        lambda stick: stick.image.spoil_checksum(stick.ours),
        lambda stick: stick.image.litter(stick.upload),
        lambda stick: stick.image.share(stick.ours, stick.theirs),
        lambda stick: stick.image.free(stick.backups),
    ],
    ids=["free", "checksum", "litter", "shared", "folder"],
)
def test_damage_in_the_backup_is_found_and_repaired(stick: Stick, look: Look, damage: Callable[[Stick], None]) -> None:
    damage(stick)
    before = stick.hash
    code, said = look()
    assert code == DAMAGED
    assert "error" in said
    assert "/immich-server-backups" in said
    assert stick.hash == before, "a check changes nothing"
    assert look("--repair")[0] == REPAIRED
    assert stick.image.flags == 0
    assert "ERROR" not in stick.fsck()
    assert look()[0] == CLEAN


@pytest.mark.parametrize(
    "damage",
    [
        lambda stick: stick.image.free(stick.theirs),
        lambda stick: (stick.image.free(stick.ours), stick.image.free(stick.theirs)),
        lambda stick: stick.image.spoil_checksum(stick.theirs),
        lambda stick: stick.image.spoil_boot_region(),
    ],
    ids=["free", "both", "checksum", "boot"],
)
def test_what_is_not_ours_is_never_repaired(stick: Stick, look: Look, damage: Callable[[Stick], None]) -> None:
    damage(stick)
    before = stick.hash
    assert look("--repair")[0] == DAMAGED
    assert stick.hash == before
    assert look()[0] == DAMAGED


def test_a_folder_whose_name_only_begins_like_ours_is_not_ours(stick: Stick, look: Look) -> None:
    stick.image.free(stick.image.file("immich-server-backups.txt"))
    before = stick.hash
    assert look("--repair")[0] == DAMAGED
    assert stick.hash == before


def test_names_are_told_as_they_are(stick: Stick, look: Look) -> None:
    stick.image.free(stick.ours)
    assert "/immich-server-backups/upload/é.jpg: cluster" in look()[1]


def test_what_cannot_be_repaired_keeps_its_mark(stick: Stick, look: Look) -> None:
    stick.image.odd_size(stick.upload)
    code, said = look("--repair")
    assert code == DAMAGED
    assert "could not be repaired" in said
    assert stick.image.flags == DIRTY, "fsck took it off, and the next look would call the disk clean"
    assert look()[0] == DAMAGED


def test_a_failing_medium_is_spoken_of(stick: Stick, look: Look) -> None:
    stick.image.flags = MEDIA_FAILURE
    code, said = look()
    assert code == UNCLEAN
    assert "the medium fails" in said


def test_without_fsck_it_is_unknown(stick: Stick, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert look() == (UNKNOWN, "unknown: fsck.exfat cannot be run: No such file or directory")


@pytest.mark.parametrize("content", [b"", bytes(4096), b"\xeb\x76\x90NTFS    " + bytes(4000)])
def test_what_holds_no_exfat_is_unknown_and_untouched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "other.img"
    path.write_bytes(content)
    assert main(["check-file-system", "--repair", str(path)]) == UNKNOWN
    assert capsys.readouterr().out == "unknown: it holds no exFAT file system\n"
    assert path.read_bytes() == content


def test_hostile_names_stay_on_one_harmless_line(stick: Stick, look: Look) -> None:
    stick.image.free(stick.image.file("a\x1b[2J\n/immich-server-backups/x", stick.upload))
    code, said = look("--repair")
    assert code == DAMAGED
    assert said.isprintable()


def _fake_fsck(folder: Path, script: str) -> None:
    path = folder / "fsck.exfat"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("script", ["exit 8", "kill -9 $$", "echo 'failed to open'; exit 16"])
def test_an_fsck_that_fails_tells_nothing(
    stick: Stick, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    _fake_fsck(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    code, said = look("--repair")
    assert code == UNKNOWN
    assert "fsck.exfat ended with" in said


def test_endless_output_is_read_in_little_memory(
    stick: Stick, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "ERROR: /immich-server-backups/x: cluster 0x8 is marked as free at 0x220000. Truncate (y/N)? n"
    _fake_fsck(tmp_path, f"for to in 1 2; do yes '{line}' | head -n 50000 >&$to; done; exit 4")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    code, said = look()
    assert code == DAMAGED
    assert "100,000 errors, the first: /immich-server-backups/x: cluster 0x8 is marked as free" in said
    assert len(said) < 300
