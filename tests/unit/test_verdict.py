"""The dump held against the disk: what is counted, what is missing, and whether the disk brings everything back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.model import DiskVerdict, Restorable
from immich_usb_backup.policy import verdict as policy
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.policy.external import Coverage, Names
from immich_usb_backup.policy.manifest import Known, KnownFolder
from immich_usb_backup.policy.verdict import Tally, known_folders, side_by_side, verdict, without_assets

A, B = b"a" * 20, b"b" * 20
BLANK = DiskVerdict(restorable=Restorable.NO, dump="d.sql.gz", dump_time=datetime(2026, 11, 21, 2, tzinfo=UTC))


def known(name: bytes, digest: bytes = A, *, proven: int = 7, link: bytes | None = None) -> Known:
    return Known(name, name, 5, 1, digest=digest, proven=proven, link=link)


def folder(path: bytes, *files: Known, folders: Iterable[bytes] = ()) -> KnownFolder:
    return KnownFolder(path, path, {file.name: file for file in files}, {name: name for name in folders})


def tally_of(
    assets: Iterable[Asset], *folders: KnownFolder, rotten: frozenset[bytes] = frozenset()
) -> tuple[Tally, DiskVerdict]:
    named: dict[bytes, dict[bytes, Asset]] = {}
    for asset in sorted(assets):
        above, _, name = asset.path.rpartition(b"/")
        named.setdefault(above, {})[name] = asset
    pairs = side_by_side(iter(sorted(named.items())), iter(sorted(folders, key=lambda one: one.path)))
    tally = Tally(rotten=rotten)
    while tally.take(pairs, lambda: None):
        pass
    for asset in tally.take_missing():
        tally.absent.add(asset.path)
    return tally, verdict(tally, Coverage(), BLANK)


def test_what_lies_there_and_was_read_back_with_immichs_hash_is_proven() -> None:
    _, found = tally_of([Asset(b"upload/1.jpg", A)], folder(b"upload", known(b"1.jpg")))
    assert (found.assets, found.present, found.proven, found.missing) == (1, 1, 1, 0)
    assert found.restorable is Restorable.YES
    assert found.reasons == ()
    assert found.dump == "d.sql.gz"


@pytest.mark.parametrize("line", [known(b"1.jpg", proven=0), known(b"1.jpg", b"")])
def test_what_was_not_read_back_is_present_and_not_proven(line: Known) -> None:
    _, found = tally_of([Asset(b"upload/1.jpg", A)], folder(b"upload", line))
    assert (found.present, found.proven, found.changed) == (1, 0, 0)
    assert found.restorable is Restorable.YES


def test_where_immich_has_no_hash_ours_of_the_copy_counts() -> None:
    _, found = tally_of([Asset(b"upload/1.jpg", b"")], folder(b"upload", known(b"1.jpg", B)))
    assert found.proven == 1


def test_another_content_than_the_uploads_is_changed_and_never_proven() -> None:
    tally, found = tally_of([Asset(b"upload/1.jpg", A)], folder(b"upload", known(b"1.jpg", B)))
    assert (found.present, found.proven, found.changed) == (1, 0, 1)
    assert tally.changed.items == ["upload/1.jpg"]
    assert found.restorable is Restorable.YES, "it brings back what the server has"


def test_what_is_not_on_the_disk_is_named() -> None:
    assets = [Asset(b"library/x/1.jpg", A), Asset(b"upload/2.jpg", B), Asset(b"upload/3.jpg", B)]
    links = known(b"3.jpg", link=b"elsewhere")
    _, found = tally_of(assets, folder(b"upload", known(b"2.jpg", B), links))
    assert (found.assets, found.present, found.missing) == (3, 1, 2)
    assert found.restorable is Restorable.EXCEPT
    assert found.exceptions == ("library/x/1.jpg: not on the disk", "upload/3.jpg: not on the disk")
    assert found.exception_count == 2
    assert found.reasons == ("2 photos are not on the disk",)


def test_nothing_of_the_dump_on_the_disk_is_a_no() -> None:
    _, found = tally_of([Asset(b"upload/1.jpg", A)])
    assert found.restorable is Restorable.NO
    assert found.reasons == ("1 photo is not on the disk",)


def test_an_empty_immich_comes_back() -> None:
    _, found = tally_of([])
    assert found.restorable is Restorable.YES


def test_what_is_damaged_on_the_disk_is_not_present() -> None:
    assets = [Asset(b"upload/1.jpg", A), Asset(b"upload/2.jpg", A)]
    rotten = frozenset({b"upload/1.jpg", b"upload/1.jpg.xmp"})
    _, found = tally_of(assets, folder(b"upload", known(b"1.jpg"), known(b"2.jpg")), rotten=rotten)
    assert (found.assets, found.present, found.rotten_on_disk) == (2, 1, 2)
    assert found.restorable is Restorable.EXCEPT
    assert found.exceptions[0] == "upload/1.jpg: damaged on the disk"
    assert found.exception_count == 2
    assert found.reasons == ("2 files on the disk are damaged",)


def test_what_never_read_back_right_after_its_copy_is_damaged_and_not_missing_too() -> None:
    assets = [Asset(b"upload/1.jpg", A), Asset(b"upload/2.jpg", A)]
    _, found = tally_of(assets, folder(b"upload", known(b"2.jpg")), rotten=frozenset({b"upload/1.jpg"}))
    assert (found.present, found.missing, found.rotten_on_disk, found.exception_count) == (1, 0, 1, 1)


@pytest.mark.parametrize("there", [[], [known(b"1.jpg")]])
def test_what_lies_in_immichs_trash_is_neither_missing_nor_unknown(there: list[Known]) -> None:
    _, found = tally_of([Asset(b"upload/1.jpg", A, trashed=True)], folder(b"upload", *there))
    assert (found.trashed, found.assets, found.missing, found.unknown) == (1, 0, 0, 0)
    assert found.restorable is Restorable.YES


def test_unknown_is_what_the_dump_does_not_account_for() -> None:
    files = [b"1.jpg", b"1.jpg.xmp", b"1.XMP", b"new.jpg", b"new.jpg.xmp", b".immich"]
    there = folder(b"upload", *map(known, files), known(b"link", link=b"x"))
    _, found = tally_of([Asset(b"upload/1.jpg", A)], there, folder(b"upload/new", known(b"2.jpg")))
    assert found.unknown == 3, "new.jpg, its sidecar, and 2.jpg"
    assert found.restorable is Restorable.YES


def test_what_was_moved_after_the_dump_is_there_and_known() -> None:
    tally = Tally()
    pairs = side_by_side(
        iter([(b"upload", {b"1.jpg": Asset(b"upload/1.jpg", A)})]), iter([folder(b"library", known(b"x.jpg"))])
    )
    tally.take(pairs, lambda: None)
    assert [asset.path for asset in tally.take_missing()] == [b"upload/1.jpg"]
    assert tally.take_missing() == []
    tally.found_elsewhere(b"library/x.jpg", known(b"x.jpg"))
    found = verdict(tally, Coverage(), BLANK)
    assert (found.present, found.moved, found.proven, found.missing, found.unknown) == (1, 1, 1, 0, 0)
    assert found.restorable is Restorable.YES


def test_what_an_external_library_misses_is_an_exception() -> None:
    outside = Coverage(assets=3, trashed=1, missing=Names(2, ["/p/1.jpg", "/p/2.jpg"]), lines=('extra.p = "/p"',))
    found = verdict(Tally(), outside, BLANK)
    assert (found.external, found.external_covered, found.trashed) == (3, 1, 1)
    assert found.extra_folders == ('extra.p = "/p"',)
    assert found.restorable is Restorable.EXCEPT
    assert found.exceptions == ("/p/1.jpg: external library", "/p/2.jpg: external library")
    assert found.reasons == ("2 photos of external libraries are not on the disk",)


def test_the_list_of_exceptions_is_bounded_and_counted() -> None:
    assets = [Asset(b"upload/%06d\n.jpg" % number, A) for number in range(1000)]
    tally, found = tally_of(assets)
    assert len(found.exceptions) == 200
    assert found.exception_count == 1000
    assert found.exceptions[0] == "upload/000000\\n.jpg: not on the disk"
    assert len(tally.absent.items) == 200
    for number in range(300):
        tally.gone.add(b"upload/gone%d" % number)
    both = verdict(tally, Coverage(), BLANK)
    assert (len(both.exceptions), both.exception_count) == (200, 1300)


def test_so_many_are_missing_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "MISSING_AT_ONCE", 3)
    named = [(b"upload/%d" % n, {b"%d" % m: Asset(b"upload/%d/%d" % (n, m), A) for m in range(2)}) for n in range(4)]
    tally, pairs, taken = Tally(), side_by_side(iter(named), iter(())), []
    more = True
    while more:
        more = tally.take(pairs, lambda: None)
        taken.append(len(tally.take_missing()))
    assert taken == [4, 4, 0]


@pytest.mark.parametrize(("dump", "word"), [("", "no good database dump"), ("d.sql.gz", "could not be read")])
def test_without_the_dumps_list_nobody_can_tell(dump: str, word: str) -> None:
    blank = DiskVerdict(restorable=Restorable.YES, dump=dump, files=5)
    found = without_assets(blank, rotten=frozenset({b"upload/1.jpg"}))
    assert found.restorable is Restorable.NO
    assert word in found.reasons[0]
    assert found.reasons[1] == "1 file on the disk is damaged"
    assert found.exceptions == ("upload/1.jpg: damaged on the disk",)
    assert found.files == 5


PATHS = st.lists(st.sampled_from([b"a", b"b", b"-", b"a-", b"\x01"]), max_size=4).map(b"/".join)


@given(paths=st.sets(PATHS), named=st.sets(PATHS))
def test_both_sides_are_walked_as_one(paths: set[bytes], named: set[bytes]) -> None:
    """Whatever sorts before a slash: each folder once, with what both sides have of it."""
    tree = _tree(b"upload/" + path for path in paths)
    dump = [(b"upload/" + path, {b"x": Asset(b"upload/" + path + b"/x", A)}) for path in named]
    row = list(side_by_side(iter(sorted(dump)), known_folders(tree.get, (b"upload", b"library"))))
    assert [path for path, _, _ in row] == sorted({*tree, *(path for path, _ in dump)})
    for path, assets, there in row:
        assert assets == dict(dump).get(path, {})
        assert there is tree.get(path)


def _tree(paths: Iterable[bytes]) -> Mapping[bytes, KnownFolder]:
    found: dict[bytes, set[bytes]] = {}
    for path in paths:
        while path:
            found.setdefault(path, set())
            above, _, name = path.rpartition(b"/")
            found.setdefault(above, set()).add(name)
            path = above
    found.pop(b"", None)
    return {path: folder(path, folders=sorted(names)) for path, names in found.items()}
