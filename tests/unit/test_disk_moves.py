"""Renaming in batches: nothing is ever overwritten, and whatever is left is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.adapters.disk_moves import move_files
from immich_usb_backup.adapters.tree import Descriptor

NAMES = ("a", "b", "A", "c/a", "c/B", "d/e/f")


class Place:
    """A folder with files whose content is their first name."""

    def __init__(self, root: Path, *names: str) -> None:
        self.root = root
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)

    def move(self, *pairs: tuple[str, str], beside: bool = False) -> dict[str, str]:
        """Move; what was left, and why."""
        encoded = [(old.encode(), new.encode()) for old, new in pairs]
        with Descriptor.open(self.root) as opened:
            left = move_files(opened.fd, encoded, beside=beside, beat=lambda: None)
        return {old.decode(): reason for old, reason in left}

    @property
    def now(self) -> dict[str, str]:
        """Path to content."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_text() for path in files}

    @property
    def folders(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_dir()}


def test_files_move_into_new_folders_and_emptied_ones_go(tmp_path: Path) -> None:
    place = Place(tmp_path, "upload/a/b/1", "upload/a/b/2", "upload/c/3", "upload/c/4")
    moves = {"upload/a/b/1": "library/x/1", "upload/a/b/2": "library/y/z/2", "upload/c/3": "upload/3"}
    assert place.move(*moves.items()) == {}
    assert place.now == {**{new: old for old, new in moves.items()}, "upload/c/4": "upload/c/4"}
    assert place.folders == {"upload", "upload/c", "library", "library/x", "library/y", "library/y/z"}


def test_the_first_folder_stays_though_it_is_empty(tmp_path: Path) -> None:
    place = Place(tmp_path, "upload/1")
    place.move(("upload/1", "library/1"))
    assert place.folders == {"upload", "library"}


def test_a_taken_name_is_left_alone_or_gets_a_number(tmp_path: Path) -> None:
    place = Place(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    assert place.move(("a.jpg", "b.jpg")) == {"a.jpg": "its new name is taken"}
    assert place.move(("a.jpg", "b.jpg"), ("c.jpg", "b.jpg"), beside=True) == {}
    assert place.now == {"b.jpg": "b.jpg", "b (2).jpg": "a.jpg", "b (3).jpg": "c.jpg"}


def test_a_chain_is_followed_in_whatever_order_it_comes(tmp_path: Path) -> None:
    place = Place(tmp_path, "1", "2", "3")
    assert place.move(("1", "2"), ("2", "3"), ("3", "4")) == {}
    assert place.now == {"2": "1", "3": "2", "4": "3"}


def test_two_that_want_each_others_names_stay(tmp_path: Path) -> None:
    place = Place(tmp_path, "1", "2", "3")
    assert place.move(("1", "2"), ("2", "1"), ("3", "4")).keys() == {"1", "2"}
    assert place.now == {"1": "1", "2": "2", "4": "3"}


def test_what_is_not_there_or_has_no_room_for_its_name_is_said(tmp_path: Path) -> None:
    place = Place(tmp_path, "a", "b", "c")
    left = place.move(("missing", "x"), ("a", "b/below"), ("c", "n" * 300))
    assert left.keys() == {"missing", "a", "c"}
    assert place.now == {"a": "a", "b": "b", "c": "c"}


def test_a_file_makes_room_for_a_folder_of_its_name(tmp_path: Path) -> None:
    place = Place(tmp_path, "a", "b")
    assert place.move(("a", "b/below"), ("b", "d")) == {}
    assert place.now == {"b/below": "a", "d": "b"}


def test_another_case_is_another_file_where_it_is_one(tmp_path: Path) -> None:
    """On a file system that tells them apart; the loop disk's does not."""
    place = Place(tmp_path, "IMG.jpg", "img.jpg")
    assert place.move(("IMG.jpg", "img.jpg")) == {"IMG.jpg": "its new name is taken"}
    assert place.now == {"IMG.jpg": "IMG.jpg", "img.jpg": "img.jpg"}
    assert place.move(("IMG.jpg", "img.jpg"), beside=True) == {}
    assert place.now == {"img (2).jpg": "IMG.jpg", "img.jpg": "img.jpg"}


def test_a_name_to_itself_is_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, "a")
    assert place.move(("a", "a"), beside=True) == {}
    assert place.now == {"a": "a"}


@pytest.mark.parametrize("name", [b"new\nline", b"-rf", b"\xff", b"x" * 255])
def test_any_name_moves(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "old").write_text("1")
    with Descriptor.open(tmp_path) as opened:
        assert move_files(opened.fd, [(b"old", b"f/" + name)], beside=False, beat=lambda: None) == ()
        assert move_files(opened.fd, [(b"f/" + name, b"g/" + name)], beside=False, beat=lambda: None) == ()
    assert (tmp_path / "g" / os.fsdecode(name)).read_text() == "1"


@given(
    files=st.sets(st.sampled_from(NAMES)),
    pairs=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES)),
    beside=st.booleans(),
)
def test_no_batch_loses_a_file(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], pairs: dict[str, str], beside: bool
) -> None:
    place = Place(tmp_path_factory.mktemp("moves"), *sorted(files))
    left = place.move(*pairs.items(), beside=beside)
    assert sorted(place.now.values()) == sorted(files)
    for old in files & left.keys():
        assert place.now[old] == old
