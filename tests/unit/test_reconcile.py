"""A walk over the disk beside its manifest: what is missing, what is another, what nobody knows of."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from immich_usb_backup.policy.manifest import Change, Folder, FolderName, Known, KnownFolder, SourceFile
from immich_usb_backup.policy.reconcile import Walked, reconcile

NOW = 1_700_000_000 * 10**9
FILE = SourceFile(5, NOW)


def _known(name: bytes, stored: bytes | None = None) -> Known:
    return Known(name, stored or name, 5, NOW, 7, b"d" * 20, 3)


def _in(
    path: bytes, *known: Known, folders: Mapping[bytes, bytes] | None = None, stored: bytes | None = None
) -> KnownFolder:
    return KnownFolder(path, stored or path, {k.name: k for k in known}, folders or {})


def _walked(*folders: Folder, manifest: tuple[KnownFolder, ...] = ()) -> Walked:
    return reconcile(b"upload", folders, {folder.stored_path: folder for folder in manifest}.get)


ODD = (
    _in(b"upload", folders={b"a?": b"a_~x"}),
    _in(b"upload/a?", _known(b"b:", b"b_~y"), folders={b"deep": b"deep"}, stored=b"upload/a_~x"),
    _in(b"upload/a?/deep", _known(b"c"), Known(b"l", b"", 0, 0, link=b"x"), stored=b"upload/a_~x/deep"),
)


def test_a_disk_that_is_as_the_manifest_says_changes_nothing() -> None:
    folders = (
        Folder(b"", folders=(b"a_~x",)),
        Folder(b"a_~x", {b"b_~y": SourceFile(5, NOW + 10**9)}, (b"deep",)),
        Folder(b"a_~x/deep", {b"c": FILE}),
    )
    found = _walked(*folders, manifest=ODD)
    assert (found.changes, found.missing, found.altered, found.unknown, found.files) == ([], [], [], 0, 2)


def test_what_is_missing_leaves_the_manifest_under_the_server_s_name() -> None:
    found = _walked(
        Folder(b"", folders=(b"a_~x",)), Folder(b"a_~x", folders=(b"deep",)), Folder(b"a_~x/deep"), manifest=ODD
    )
    assert found.missing == [b"upload/a_~x/b_~y", b"upload/a_~x/deep/c"]
    assert found.changes == [Change(b"upload/a?/b:", None), Change(b"upload/a?/deep/c", None)]


def test_a_folder_that_is_missing_takes_its_files_with_it_and_leaves_the_links() -> None:
    found = _walked(Folder(b""), manifest=ODD)
    assert found.changes == [Change(b"upload/a?/b:", None), Change(b"upload/a?/deep/c", None)]


def test_a_root_that_is_missing_is_missing_with_all_below_it() -> None:
    assert _walked(manifest=ODD).missing == [b"upload/a_~x/b_~y", b"upload/a_~x/deep/c"]
    assert _walked().changes == []


@pytest.mark.parametrize("path", [b"", b"a_~x"])
def test_nothing_is_missing_below_a_folder_that_cannot_be_read(path: bytes) -> None:
    bad = Folder(path, unreadable=((b"", "Input/output error"),))
    found = _walked(*([bad] if not path else [Folder(b"", folders=(b"a_~x",)), bad]), manifest=ODD)
    assert (found.changes, found.missing) == ([], [])
    assert found.unreadable == [(b"upload/" + path if path else b"upload", "Input/output error")]


def test_an_entry_that_cannot_be_looked_at_is_not_missing() -> None:
    there = (_in(b"upload", _known(b"a"), folders={b"sub": b"sub"}), _in(b"upload/sub", _known(b"c")))
    bad = ((b"a", "Input/output error"), (b"sub", "Input/output error"))
    assert _walked(Folder(b"", unreadable=bad), manifest=there).changes == []


@pytest.mark.parametrize("file", [SourceFile(6, NOW), SourceFile(5, NOW + 10**10), SourceFile(0, 0)])
def test_what_was_altered_is_no_longer_the_file_that_was_proven(file: SourceFile) -> None:
    found = _walked(Folder(b"", {b"a": file}), manifest=(_in(b"upload", _known(b"a")),))
    assert found.altered == [b"upload/a"]
    assert found.changes == [Change(b"upload/a", Known(b"a", b"a", file.size, file.mtime_ns, 0, b"d" * 20, 0))]


def test_a_photo_without_a_date_is_not_altered_by_exfat_s_own_time() -> None:
    known = _known(b"a")._replace(mtime_ns=0)
    disk = Folder(b"", {b"a": SourceFile(5, 315_532_800 * 10**9)})
    assert _walked(disk, manifest=(_in(b"upload", known),)).changes == []


def test_what_nobody_knows_is_guessed_to_have_the_name_that_it_has() -> None:
    found = _walked(Folder(b"", {b"a": FILE}, (b"sub",)), Folder(b"sub", {b"b": FILE}))
    assert found.unknown == 2
    assert found.changes == [
        Change(b"upload/a", Known(b"a", b"a", 5, NOW, guessed=True)),
        Change(b"upload/sub/b", Known(b"b", b"b", 5, NOW, guessed=True)),
    ]


def test_what_nobody_knows_lies_below_the_server_s_name_of_its_folder() -> None:
    found = _walked(
        Folder(b"", folders=(b"a_~x",)),
        Folder(b"a_~x", folders=(b"new",)),
        Folder(b"a_~x/new", {b"n": FILE}),
        manifest=ODD,
    )
    assert Change(b"upload/a?/new/n", Known(b"n", b"n", 5, NOW, guessed=True)) in found.changes


def test_a_guess_takes_no_line_of_another_file_or_folder() -> None:
    there = (
        _in(b"upload", _known(b"a", b"a~x"), folders={b"f": b"f~x"}),
        _in(b"upload/f", _known(b"in"), stored=b"upload/f~x"),
    )
    disk = (
        Folder(b"", {b"a": FILE, b"a~x": FILE}, (b"f", b"f~x")),
        Folder(b"f", {b"in": FILE}),
        Folder(b"f~x", {b"in": FILE}),
    )
    found = _walked(*disk, manifest=there)
    assert found.changes == [
        Change(b"upload/a~", Known(b"a~", b"a", 5, NOW, guessed=True)),
        FolderName(b"upload/f~", b"f"),
        Change(b"upload/f~/in", Known(b"in", b"in", 5, NOW, guessed=True)),
    ]
    assert (found.missing, found.unknown) == ([], 2)


def test_an_unknown_file_takes_no_line_of_a_folder() -> None:
    there = (_in(b"upload", folders={b"f": b"f~x"}), _in(b"upload/f", _known(b"in"), stored=b"upload/f~x"))
    found = _walked(Folder(b"", {b"f": FILE}, (b"f~x",)), Folder(b"f~x", {b"in": FILE}), manifest=there)
    assert found.changes == [Change(b"upload/f~", Known(b"f~", b"f", 5, NOW, guessed=True))]


def test_another_case_is_the_same_file_and_the_manifest_learns_its_spelling() -> None:
    there = (
        _in(b"upload", _known(b"a"), folders={b"Sub": b"Sub"}),
        _in(b"upload/Sub", _known(b"b"), folders={b"deep": b"deep"}),
        _in(b"upload/Sub/deep", _known(b"c")),
    )
    disk = (
        Folder(b"", {b"A": FILE}, (b"SUB",)),
        Folder(b"SUB", {b"b": FILE}, (b"deep",)),
        Folder(b"SUB/deep", {b"c": FILE}),
    )
    found = _walked(*disk, manifest=there)
    assert (found.missing, found.unknown, found.altered) == ([], 0, [])
    assert found.changes == [Change(b"upload/a", _known(b"a", b"A")), FolderName(b"upload/Sub", b"SUB")]


def test_walks_add_up() -> None:
    one, other = _walked(Folder(b"", {b"a": FILE})), _walked(manifest=ODD)
    one.add(other)
    assert (len(one.changes), len(one.missing), one.unknown, one.files) == (3, 2, 1, 1)
