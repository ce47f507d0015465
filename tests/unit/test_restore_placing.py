"""A restore puts photos where the dump's database looks for them, though Immich moved them between dump and backup."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
from tests.support import samples
from tests.support.backup_folder import make_backup

from immich_usb_backup.__main__ import main
from immich_usb_backup.model import BACKUP_FOLDER
from immich_usb_backup.policy.dumps import newest_first
from immich_usb_backup.policy.placing import CANDIDATES_AT_MOST, Candidate, move, placeable
from immich_usb_backup.policy.restore import IMMICH_MARK, STAGING
from immich_usb_backup.restore import placing

NEW = "library/admin/2024/new: album/IMG_9.jpg"
ABSENT = "in the database, but not on this disk"


class Library:
    """A library with its dump. Photo 0 has a sidecar and 10 lies in the trash; those of even numbers are in ``upload``."""

    def __init__(self, root: Path) -> None:
        self.media = root / "media"
        self.disk = root / "disk"
        self.to = root / "restored"
        self.photos = samples.make_media_location(self.media, photos=12).photos

    def move(self, number: int, new: str = NEW) -> str:
        """As the storage template does after the dump: the file, and the one beside it. Returns the path in the dump."""
        path = self.photos[number].path
        (self.media / new).parent.mkdir(parents=True, exist_ok=True)
        (self.media / path).rename(self.media / new)
        if self.photos[number].sidecar:
            (self.media / f"{path}.xmp").rename(self.media / f"{new}.xmp")
        return path

    def remove(self, number: int) -> str:
        """As Immich does when a user empties the trash. Returns the path in the dump."""
        path = self.photos[number].path
        (self.media / path).unlink()
        return path

    def say_in_the_dump(self, old: str, new: str) -> None:
        """Change the text of the newest dump."""
        path = self.media / "backups" / newest_first(file.name for file in (self.media / "backups").iterdir())[0].name
        text = gzip.decompress(path.read_bytes()).decode()
        assert old in text
        path.write_bytes(gzip.compress(text.replace(old, new).encode()))

    def media_files(self) -> tuple[str, ...]:
        """The files on the server now, without Immich's marks."""
        folders = ("upload", "library", "profile")
        found = (file for folder in folders for file in (self.media / folder).rglob("*") if file.is_file())
        return tuple(str(file.relative_to(self.media)) for file in found if file.name != IMMICH_MARK)

    def back_up(self, **extras: Path) -> None:
        """To a disk of its own. A manifest has no empty folders."""
        for folder in sorted((path for path in self.media.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
        make_backup(self.disk, self.media, extras=extras)

    def restore(self, *more: str) -> int:
        """From the disk, which gets its backup first."""
        if not self.disk.exists():
            self.back_up()
        return main(["restore", "--from", str(self.disk), "--to", str(self.to), *more])

    def files(self) -> dict[str, bytes]:
        """What is restored, without Immich's marks and dumps."""
        found = (file for file in self.to.rglob("*") if file.is_file() and file.name != IMMICH_MARK)
        paths = {str(file.relative_to(self.to)): file for file in found}
        return {path: file.read_bytes() for path, file in paths.items() if not path.startswith("backups/")}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


def test_what_immich_moved_after_the_dump_goes_back_with_what_lies_beside_it(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: (library.media / path).read_bytes() for path in library.media_files()}
    moved = {library.move(0), library.move(2, "library/admin/b.jpg"), library.move(1, "upload/u/a.jpg")}
    assert library.restore() == 0
    assert library.files() == before
    assert moved <= library.files().keys()
    said = capsys.readouterr().out
    assert "    3 photos were put where the database expects them: Immich had moved them after the dump." in said
    assert library.restore() == 0
    said = capsys.readouterr().out
    assert "Nothing was written" in said
    assert "were put" not in said


def test_times_are_those_of_the_moved_file_and_the_sha1_is_proven(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    path = library.move(0)
    time = (library.media / NEW).stat().st_mtime_ns
    assert library.restore() == 0
    assert (library.to / path).stat().st_mtime_ns == time
    assert "with the SHA-1 of the backup's list, 1 with the disk" in capsys.readouterr().out  # that one is the dump


def test_a_dry_run_tells_of_moved_and_absent_photos(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.move(0)
    gone = library.remove(2)
    assert library.restore("--dry-run") == 1
    said = capsys.readouterr().out
    assert not library.to.exists()
    assert "    1 photo would be put where the database expects it" in said
    assert f"    1 file: {ABSENT}\n        {gone}\n" in said


def test_photos_that_are_nowhere_are_named_and_those_in_the_trash_are_not(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = library.remove(2)
    trashed = library.remove(10)
    assert library.photos[10].in_trash
    assert library.restore() == 1
    said = capsys.readouterr().out
    assert f"    1 file: {ABSENT}\n        {gone}\n" in said
    assert trashed not in said


def test_what_another_disk_brought_is_not_missed(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    photo = library.photos[2]
    (library.to / photo.path).parent.mkdir(parents=True)
    shutil.copy2(library.media / photo.path, library.to / photo.path)
    library.remove(2)
    assert library.restore() == 0
    assert ABSENT not in capsys.readouterr().out


def test_a_moved_one_in_the_trash_goes_back_too(library: Library) -> None:
    path = library.move(10)
    assert library.restore() == 0
    assert path in library.files()
    assert NEW not in library.files()


def test_what_two_users_have_comes_back_for_both_though_the_disk_has_it_once(library: Library) -> None:
    gone, there = library.photos[2], library.photos[4]
    library.remove(2)
    library.say_in_the_dump(gone.sha1, there.sha1)
    assert library.restore() == 0
    assert library.files()[gone.path] == library.files()[there.path]


def test_two_moved_ones_with_one_content_each_take_a_file(library: Library) -> None:
    shutil.copy2(library.media / library.photos[2].path, library.media / library.photos[4].path)
    library.say_in_the_dump(library.photos[4].sha1, library.photos[2].sha1)
    before = library.media_files()
    library.move(2, "library/a.jpg")
    library.move(4, "library/b.jpg")
    assert library.restore() == 0
    assert library.files().keys() == set(before)


def test_only_the_files_stay_where_immich_had_them_last(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    path = library.move(0)
    gone = library.remove(2)
    assert library.restore("--only", "files") == 0
    assert NEW in library.files()
    assert path not in library.files()
    said = capsys.readouterr().out
    assert "Immich had moved 1 photo after the dump was made" in said
    assert gone not in said
    assert "Restore the database before" not in said
    assert library.restore() == 1
    assert {NEW, path} <= library.files().keys()


def test_what_is_there_is_not_replaced(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    path = library.move(0)
    (library.to / path).parent.mkdir(parents=True)
    (library.to / path).write_text("mine")
    assert library.restore() == 1
    assert library.files()[path] == b"mine"
    assert f"there already with another content (--overwrite replaces it)\n        {path}\n" in capsys.readouterr().out


def test_a_file_that_the_manifest_does_not_have_is_in_its_place(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup that was cut off leaves such."""
    library.back_up()
    new = "upload/late/late.jpg"
    (library.disk / BACKUP_FOLDER / new).parent.mkdir()
    (library.disk / BACKUP_FOLDER / new).write_bytes(b"late")
    library.say_in_the_dump(library.photos[2].path, new)
    for dump in (library.media / "backups").glob("*.gz"):
        shutil.copy2(dump, library.disk / BACKUP_FOLDER / "database" / dump.name)
    assert library.restore() == 0
    assert library.files()[new] == b"late"
    assert "were put" not in capsys.readouterr().out


def test_a_folder_that_the_disk_lost_is_missed(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.back_up()
    shutil.rmtree(library.disk / BACKUP_FOLDER / "upload")
    assert library.restore() == 1
    said = capsys.readouterr().out
    assert "in the backup's list, but not on the disk" in said
    assert library.photos[0].path in said


def test_a_moved_photo_may_lie_in_a_folder_that_is_restored_elsewhere(library: Library, tmp_path: Path) -> None:
    path = library.photos[2].path
    (tmp_path / "pictures").mkdir()
    (library.media / path).rename(tmp_path / "pictures/a.jpg")
    library.back_up(pictures=tmp_path / "pictures")
    assert library.restore("--extra", f"pictures={tmp_path / 'there'}") == 0
    assert library.files()[path] == (tmp_path / "there/a.jpg").read_bytes()


def test_a_dump_that_cannot_be_understood_stops_no_files(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    library.say_in_the_dump(f"\\\\x{library.photos[2].sha1}", "abc")
    assert library.restore() == 1
    said = capsys.readouterr().out
    assert "Whether the database's photos are all here is not known: " in said
    assert "bytea_output" in said
    assert library.photos[2].path in library.files()


@pytest.mark.parametrize(
    "hostile",
    [
        "/etc/passwd.jpg",
        "upload/../../outside.jpg",
        f"upload/{IMMICH_MARK}",
        f"upload/{STAGING}/1",
        "upload",
        "upload/a\\000b.jpg",
        f"upload/{'x' * 300}/{'y' * 5000}.jpg",
        "backups/x",
    ],
)
def test_a_dump_that_wants_something_gets_nothing(library: Library, tmp_path: Path, hostile: str) -> None:
    library.say_in_the_dump(f"{samples.MEDIA_LOCATION}/{library.photos[2].path}", f"{samples.MEDIA_LOCATION}/{hostile}")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    library.restore()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert library.files().keys() == set(library.media_files())
    assert (library.to / "upload/.immich").read_text().isdigit()


def test_a_library_that_moved_as_a_whole_goes_back_in_portions(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(placing, "_AT_ONCE", 2)
    before = set(library.media_files())
    for number in range(12):
        library.move(number, f"library/moved/{number}.jpg")
    assert library.restore() == 0
    assert library.files().keys() == before
    assert "12 photos were put" in capsys.readouterr().out


def test_nothing_is_left_among_the_temporary_files(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    library.move(0)
    assert library.restore() == 0
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_file_that_nobody_else_needs_is_taken_first() -> None:
    named, taken, free = (
        Candidate(b"upload/a", True, False),
        Candidate(b"upload/b", False, True),
        Candidate(b"x/c", False, False),
    )
    best = move(b"upload/p", (named, taken, free))
    assert best is not None
    assert (best.source, best.keep) == (b"x/c", False)
    best = move(b"upload/p", (named,))
    assert best is not None
    assert best.keep
    assert move(b"upload/p", ()) is None
    assert not placeable(b"upload//a")
    assert CANDIDATES_AT_MOST > 1
