"""Reading a boot sector, and what fsck.exfat says: lines as exfatprogs 1.2.0 prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.policy.exfat import boot_sector, is_sound, may_repair, read_lines
from immich_usb_backup.policy.text import harmless

CLEAN = ["exfatprogs version : 1.2.0\n", "/dev/sda1: clean. directories 4, files 6\n"]
OURS = "ERROR: /immich-server-backups/upload/a.jpg: cluster 0x8 is marked as free at 0x220000. Truncate (y/N)? n\n"
FOLDER = "ERROR: /immich-server-backups: unknown entry type 0xff at 0000060 at 0x220060. Delete (y/N)? n\n"
THEIRS = "ERROR: /Photos/b.jpg: cluster 0x8 is marked as free at 0x228000. Truncate (y/N)? n\n"


def _sector(flags: int) -> bytes:
    sector = bytearray(512)
    sector[3:11], sector[510:] = b"EXFAT   ", b"\x55\xaa"
    sector[0x64:0x68], sector[0x6A] = bytes.fromhex("3239530b"), flags
    return bytes(sector)


@pytest.mark.parametrize(("flags", "clean"), [(0, True), (1, True), (2, False), (4, False), (6, False), (8, True)])
def test_the_flags_say_whether_it_is_clean(flags: int, clean: bool) -> None:
    found = boot_sector(_sector(flags))
    assert found is not None
    assert found.clean is clean
    assert found.serial == "0B53-3932"


@pytest.mark.parametrize("content", [b"", _sector(0)[:511], bytes(512), b"\xff" * 512, _sector(0)[:-1] + b"\0"])
def test_what_is_no_exfat_has_no_boot_sector(content: bytes) -> None:
    assert boot_sector(content) is None


def test_a_clean_answer() -> None:
    assert is_sound(0, read_lines(CLEAN))


def test_a_complaint_counts_although_fsck_calls_it_clean() -> None:
    """Measured: entries of unknown types are named, and it ends with 0 all the same."""
    assert not is_sound(0, read_lines([CLEAN[0], FOLDER, CLEAN[1]]))


def test_an_exit_code_counts_without_a_complaint() -> None:
    assert not is_sound(4, read_lines(CLEAN))


def test_the_first_complaint_is_told_without_fscks_question() -> None:
    assert str(read_lines([OURS, FOLDER])) == (
        "2 errors, the first: /immich-server-backups/upload/a.jpg: cluster 0x8 is marked as free"
    )


@pytest.mark.parametrize("lines", [[OURS], [FOLDER], [OURS, FOLDER], [OURS.replace("immich", "Immich")], CLEAN])
def test_damage_within_the_backup_may_be_repaired(lines: list[str]) -> None:
    assert may_repair(4, read_lines(lines))


@pytest.mark.parametrize(
    "line",
    [
        THEIRS,
        "ERROR: /: unknown entry type 0xff at 0000060 at 0x220060. Delete (y/N)? n\n",
        "ERROR: /immich-server-backups.txt: cluster 0x8 is marked as free at 0x228000. Truncate (y/N)? n\n",
        "ERROR: /Photos/immich-server-backups/x: cluster 0x8 is marked as free at 0x228000. Truncate (y/N)? n\n",
        "ERROR: the cluster chain of root is broken. Truncate (y/N)? n\n",
        "ERROR: '/immich-server-backups/x' filename is not allowed.\n",
        "boot region is corrupted. try to restore the region from backup. Fix (y/N)? n\n",
        "failed to read bitmap\n",
        "something new\n",
    ],
)
def test_damage_elsewhere_or_in_unknown_words_is_not_repaired(line: str) -> None:
    assert not may_repair(4, read_lines([*CLEAN, OURS, line, OURS]))
    assert not may_repair(4, read_lines([OURS]) + read_lines([line]))


@pytest.mark.parametrize("code", [1, 2, 8, 16, 32, -9])
def test_an_fsck_that_failed_is_not_trusted(code: int) -> None:
    assert not may_repair(code, read_lines(CLEAN))
    assert not is_sound(code, read_lines(CLEAN))


@given(st.lists(st.text()), st.text())
def test_a_strangers_damage_is_seen_among_anything(noise: list[str], name: str) -> None:
    """Whatever names are on a disk: no line of another file's makes up for one."""
    found = read_lines([*noise, THEIRS.replace("b.jpg", name.replace("\n", "")), *noise])
    assert found.elsewhere
    assert harmless(str(found)) == str(found)
