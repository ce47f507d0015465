"""Restoring, as a user does it: the command on a backup folder, and what lies there afterwards."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support import samples
from tests.support.backup_folder import make_backup

from immich_usb_backup.__main__ import main
from immich_usb_backup.model import BACKUP_FOLDER
from immich_usb_backup.policy.manifest import MANIFEST
from immich_usb_backup.policy.restore import FOLDERS, ORIGINALS, STAGING

ODD = b"library/admin/caf\xe9: Mai/12:30\n.jpg"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with every odd name, an extra folder, configuration files, and a disk that has a backup of it."""
    root = tmp_path_factory.mktemp("originals")
    samples.make_media_location(root / "media", photos=12, hostile_names=True)
    odd = root / "media" / os.fsdecode(ODD)
    odd.parent.mkdir(parents=True)
    odd.write_bytes(b"odd")
    (root / "media/library/admin/best").symlink_to("2024/f 1.8.")
    (root / "pictures").mkdir()
    (root / "pictures/con.jpg").write_bytes(b"external")
    (root / "pictures/.immich").write_bytes(b"no mark of Immich's")
    config = samples.make_config_files(root / "compose")
    make_backup(root / "disk", root / "media", extras={"pictures": root / "pictures"}, config=config)
    return root


@pytest.fixture
def disk(originals: Path, tmp_path: Path) -> Path:
    """The disk, to be damaged."""
    shutil.copytree(originals / "disk", tmp_path / "disk", symlinks=True)
    return tmp_path / "disk"


@pytest.fixture
def media(originals: Path) -> Path:
    return originals / "media"


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "restored"


def listing(root: Path, *folders: str) -> Mapping[bytes, object]:
    """Content and time of each file, target of each link; no marks of Immich's."""
    found: dict[bytes, object] = {}
    for folder in folders:
        for above, _, names in os.walk(os.fsencode(root / folder)):
            for name in names:
                path = above + b"/" + name
                key = os.path.relpath(path, os.fsencode(root))
                if os.path.islink(path):
                    found[key] = os.readlink(path)
                elif name != b".immich":
                    found[key] = (
                        hashlib.sha1(Path(os.fsdecode(path)).read_bytes()).digest(),
                        os.stat(path).st_mtime_ns,
                    )
            found |= {os.path.relpath(above + b"/" + name, os.fsencode(root)): os.readlink(above + b"/" + name)
                      for name in os.listdir(above) if os.path.islink(above + b"/" + name)}  # fmt: skip
    return found


def restore(disk: Path, to: Path, *more: str) -> int:
    return main(["restore", "--from", str(disk), "--to", str(to), *more])


def photo(disk: Path, number: int = 0) -> Path:
    """One of the photos in ``upload`` on the disk."""
    return sorted((disk / BACKUP_FOLDER / "upload").rglob("*.jpg"))[number]


def assert_whole(media: Path, to: Path) -> None:
    assert listing(to, *ORIGINALS) == listing(media, *ORIGINALS)
    assert sorted(path.name for path in to.iterdir()) == sorted(FOLDERS)
    assert all((to / folder / ".immich").read_text().isdigit() for folder in FOLDERS)
    assert list(to.rglob(f"{STAGING}*")) == []


def test_names_links_times_and_contents_come_back(
    disk: Path, media: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(disk, to) == 0
    assert_whole(media, to)
    said = capsys.readouterr().out
    assert "each read back and compared" in said
    assert "the backup of 'nas', last written 21 November 2026" in said
    assert "extra/pictures: say where it goes by --extra 'pictures=PATH'" in said
    assert "--only database" in said


def test_the_folder_itself_or_a_copy_of_it_will_do(disk: Path, media: Path, to: Path) -> None:
    (disk / BACKUP_FOLDER).rename(disk / "from my disk")
    assert restore(disk / "from my disk", to) == 0
    assert_whole(media, to)


def test_a_copy_from_another_system_may_spell_names_differently(disk: Path, media: Path, to: Path) -> None:
    upper = photo(disk)
    upper.rename(upper.with_name(upper.name.upper()))
    (accented,) = (disk / BACKUP_FOLDER / "library").rglob("Cafe\u0301.jpg")
    accented.rename(accented.with_name("Caf\u00e9.jpg"))
    assert restore(disk, to) == 0
    assert_whole(media, to)


def test_the_newest_whole_dump_lies_where_immich_looks_for_it(
    disk: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, older = sorted((disk / BACKUP_FOLDER / "database").glob("*-v2*"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:200])
    assert restore(disk, to) == 1
    assert {path.name for path in (to / "backups").iterdir()} == {".immich", older.name}
    assert (to / "backups" / older.name).stat().st_mode & 0o777 == 0o600
    assert f"{newest.name} is passed over: it is damaged or was cut off" in capsys.readouterr().out


def test_a_dump_can_be_chosen(disk: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (old,) = (disk / BACKUP_FOLDER / "database").glob("immich-db-backup-1*.gz")
    assert restore(disk, to, "--dump", old.name) == 0
    assert (to / "backups" / old.name).read_bytes() == old.read_bytes()
    assert restore(disk, to, "--dump", "../manifest.jsonl.gz") == 69
    assert old.name in capsys.readouterr().err


def test_a_dry_run_says_the_same_and_writes_nothing(disk: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (missing := photo(disk)).unlink()
    assert restore(disk, to, "--dry-run") == 1
    dry = capsys.readouterr().out
    assert not to.exists()
    assert restore(disk, to) == 1
    real = capsys.readouterr().out
    for line in ("1 file: in the backup's list, but not on the disk", missing.name, "extra/pictures", "To restore: "):
        assert next(part for part in dry.splitlines() if line in part) in real.splitlines()
    count = next(line for line in dry.splitlines() if "Would restore" in line).partition(": ")[2].partition(".  ")[0]
    assert count.split(")")[0] in real


def test_what_is_there_is_never_changed(disk: Path, media: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = photo(disk).relative_to(disk / BACKUP_FOLDER)
    (to / path).parent.mkdir(parents=True)
    (to / path).write_text("mine")
    (to / "upload/.immich").write_text("my mark")
    assert restore(disk, to) == 1
    assert (to / path).read_text() == "mine"
    assert (to / "upload/.immich").read_text() == "my mark"
    said = capsys.readouterr().out
    assert "1 file: there already with another content (--overwrite replaces it)" in said
    assert str(path) in said
    assert restore(disk, to, "--overwrite") == 0
    (to / "upload/.immich").write_text("1")
    assert_whole(media, to)


def test_what_is_there_and_equal_counts_as_there(
    disk: Path, media: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(disk, to) == 0
    touched = to / photo(disk).relative_to(disk / BACKUP_FOLDER)
    os.utime(touched)
    capsys.readouterr()
    before = {path: path.stat().st_ino for path in to.rglob("*.jpg")}
    assert restore(disk, to) == 0
    assert "Nothing was written" in capsys.readouterr().out
    assert {path: path.stat().st_ino for path in to.rglob("*.jpg")} == before
    assert before[touched]


def test_the_right_size_and_time_are_believed_unless_comparing_is_asked_for(
    disk: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(disk, to) == 0
    changed = to / photo(disk).relative_to(disk / BACKUP_FOLDER)
    facts = changed.stat()
    changed.write_bytes(b"x" * facts.st_size)
    os.utime(changed, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    assert restore(disk, to) == 0
    assert restore(disk, to, "--compare") == 1
    assert "1 file: there already with another content" in capsys.readouterr().out
    assert restore(disk, to, "--compare", "--overwrite") == 0
    assert changed.read_bytes() == photo(disk).read_bytes()


def test_a_damaged_photo_is_restored_and_named(disk: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rotten = photo(disk)
    facts = rotten.stat()
    rotten.write_bytes(b"?" + rotten.read_bytes()[1:])
    os.utime(rotten, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    path = rotten.relative_to(disk / BACKUP_FOLDER)
    assert restore(disk, to) == 1
    assert (to / path).read_bytes() == rotten.read_bytes()
    said = capsys.readouterr().out
    assert "1 file: restored, but not what was backed up" in said
    assert f"{path}: its SHA-1 is another" in said
    assert "With another disk" in said


def test_a_good_photo_is_not_replaced_by_a_damaged_one(disk: Path, media: Path, to: Path) -> None:
    rotten = photo(disk)
    path = rotten.relative_to(disk / BACKUP_FOLDER)
    rotten.write_bytes(b"?" + rotten.read_bytes()[1:])
    (to / path).parent.mkdir(parents=True)
    shutil.copy(media / path, to / path)
    assert restore(disk, to, "--overwrite") == 0
    assert (to / path).read_bytes() == (media / path).read_bytes()
    (to / path).write_text("an older one of my own")
    assert restore(disk, to, "--overwrite") == 1
    assert (to / path).read_text() == "an older one of my own"


def test_without_a_manifest_the_disks_names_are_used_and_doubtful_ones_named(
    disk: Path, media: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (disk / BACKUP_FOLDER / MANIFEST).write_bytes(gzip.compress(b"{}"))
    assert restore(disk, to) == 1
    said = capsys.readouterr().out
    assert "The manifest, which has the server's names, is not used" in said
    stored = next((disk / BACKUP_FOLDER / "library").rglob("12_30~*.jpg"))
    assert (to / stored.relative_to(disk / BACKUP_FOLDER)).exists()
    assert stored.name in said
    assert "the server may have had another" in said
    assert len(listing(to, *ORIGINALS)) == len(listing(media, *ORIGINALS)) - 1  # links are in the manifest only
    plain = photo(disk)
    assert plain.name not in said


def test_a_newer_manifest_stops_it_unless_the_disks_names_are_asked_for(
    disk: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (disk / BACKUP_FOLDER / MANIFEST).write_bytes(
        gzip.compress(b'{"format":"immich-usb-backup manifest","version":99}\n{"end":true}\n')
    )
    assert restore(disk, to) == 69
    assert "--by-disk-names" in capsys.readouterr().err
    assert not to.exists()
    assert restore(disk, to, "--by-disk-names") == 1


def test_what_the_manifest_does_not_have_comes_back_too(
    disk: Path, to: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = photo(disk).with_name("newer.jpg")
    new.write_bytes(b"new")
    (disk / BACKUP_FOLDER / "upload/.partial").mkdir()
    (disk / BACKUP_FOLDER / "upload/.partial/half.jpg").write_bytes(b"half")
    assert restore(disk, to) == 0
    assert (to / new.relative_to(disk / BACKUP_FOLDER)).read_bytes() == b"new"
    assert list(to.rglob("half.jpg")) == []


def test_files_of_a_backup_that_was_cut_off_are_named(disk: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = photo(disk).with_name("newer.jpg")
    new.write_bytes(b"new")
    inside = os.fsencode(new.relative_to(disk / BACKUP_FOLDER))
    (disk / BACKUP_FOLDER / ".in-flight").mkdir()
    (disk / BACKUP_FOLDER / ".in-flight/files.1").write_bytes(inside + b"\0\0")
    assert restore(disk, to) == 1
    assert "1 file: restored, but a backup was cut off while it wrote them" in capsys.readouterr().out


def test_an_extra_folder_goes_where_it_is_told(disk: Path, originals: Path, to: Path, tmp_path: Path) -> None:
    assert restore(disk, to, "--extra", f"pictures={tmp_path / 'pics'}") == 0
    assert listing(tmp_path / "pics", ".") == listing(originals / "pictures", ".")
    assert (tmp_path / "pics/.immich").read_bytes() == b"no mark of Immich's"
    assert {path.name for path in (tmp_path / "pics").iterdir()} == {"con.jpg", ".immich"}
    assert restore(disk, to, "--extra", f"films={tmp_path / 'pics'}") == 69


def test_owner_and_permissions_are_as_asked(disk: Path, to: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    assert restore(disk, to, "--owner", "1234:2345", "--mode", "640") == 0
    for path in (to, *to.rglob("*")):
        facts = path.lstat()
        assert (facts.st_uid, facts.st_gid) == (1234, 2345), path
        if not path.is_symlink() and path != to and path.parent.name != "backups":
            assert facts.st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path
    assert to.stat().st_mode & 0o777 == 0o700


def test_the_owner_is_by_default_that_of_the_folder(disk: Path, to: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    to.mkdir()
    os.chown(to, 1234, 2345)
    assert restore(disk, to) == 0
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in to.rglob("*")} == {(1234, 2345)}


def test_it_needs_no_state_and_writes_nothing_beside(disk: Path, to: Path, tmp_path: Path) -> None:
    before = listing(disk, ".")
    assert restore(disk, to) == 0
    assert listing(disk, ".") == before
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "restored"}


@pytest.mark.parametrize("inside", ["", "library/new", "../new"])
def test_it_does_not_restore_into_the_backup(disk: Path, inside: str) -> None:
    before = listing(disk, ".")
    code = restore(disk, disk / BACKUP_FOLDER / inside if inside != "../new" else disk)
    assert code == 69
    assert listing(disk, ".") == before


def test_a_mistyped_place_is_not_made(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert restore(disk, tmp_path / "mnt/photos/immich") == 69
    assert not (tmp_path / "mnt").exists()
    assert "mkdir -p" in capsys.readouterr().err


def test_what_is_no_backup_is_called_so(tmp_path: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stick").mkdir()
    assert restore(tmp_path / "stick", to) == 69
    assert restore(tmp_path / "none", to) == 69
    said = capsys.readouterr().err
    assert "is no backup" in said
    assert "none cannot be read: No such file or directory" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "/x"],
        ["--from", "/x", "--only", "database"],
        ["--from", "/x", "--only", "files", "--to", "/y", "--docker", "c"],
        ["--from", "/x", "--to", "/y", "--docker", "c", "--database", "postgresql:///"],
        ["--from", "/x", "--to", "/y", "--owner", "nobody-of-this-name"],
        ["--from", "/x", "--to", "/y", "--mode", "444"],
        ["--from", "/x", "--to", "/y", "--extra", "pictures"],
    ],
)
def test_wrong_usage_is_refused_at_once(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["restore", *arguments])
    assert ended.value.code == 2


@pytest.mark.parametrize(("more", "code"), [((), 0), (("--owner", "1234:2345"), 1)])
def test_a_share_that_gives_nothing_away_will_do_unless_an_owner_was_asked_for(
    disk: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "share").mkdir()
    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "chown", refuse)
    assert restore(disk, tmp_path / "share", *more) == code
    assert (tmp_path / "share/upload/.immich").exists() is (code == 0)


def test_a_name_is_not_given_twice(disk: Path, media: Path, to: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = next((disk / BACKUP_FOLDER / "library").rglob("trailing_~*"))
    stored.with_name("trailing.").write_bytes(b"somebody put it there")
    assert restore(disk, to, "--overwrite") == 1
    assert listing(to, *ORIGINALS) == listing(media, *ORIGINALS)
    assert "the backup has another file of this name" in capsys.readouterr().out
