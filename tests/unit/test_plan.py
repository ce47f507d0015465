"""One folder of the server's beside the manifest: what is new, changed, gone, and under which names."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from immich_usb_backup.model import Mode
from immich_usb_backup.policy.exclude import Excludes
from immich_usb_backup.policy.manifest import Change, Folder, Known, KnownFolder, SourceFile
from immich_usb_backup.policy.names import fold
from immich_usb_backup.policy.naming import stored_names
from immich_usb_backup.policy.plan import FolderPlan, Lookup, Rules, below, plan_folder

NOW = 1_700_000_000 * 10**9


def _file(size: int = 1, mtime_ns: int = NOW, inode: int = 7) -> SourceFile:
    return SourceFile(size, mtime_ns, inode)


def _known(name: str | bytes, size: int = 1, mtime_ns: int = NOW, inode: int = 7, **more: object) -> Known:
    raw = name.encode() if isinstance(name, str) else name
    stored = more.pop("stored", raw)
    return Known(raw, stored, size, mtime_ns, inode, **more)  # type: ignore[arg-type]


def _holds(*folders: KnownFolder) -> Lookup:
    return {folder.path: folder for folder in folders}.get


EMPTY = _holds()


def _there(*known: Known, folders: Mapping[bytes, bytes] | None = None) -> KnownFolder:
    return KnownFolder(b"upload", b"upload", {k.name: k for k in known}, folders or {})


def _folder(path: bytes = b"", *, folders: tuple[bytes, ...] = (), **files: SourceFile) -> Folder:
    return Folder(path, {name.replace("_", ".").encode(): file for name, file in files.items()}, folders)


def _plan(*folders: Folder, known: Lookup = EMPTY, **rules: object) -> FolderPlan:
    return plan_folder(folders, known, Rules(name=b"upload", source=b"/srv/upload", **rules))  # type: ignore[arg-type]


def _kinds(plan: FolderPlan) -> dict[str, list[bytes]]:
    """The server's paths by what is to be done."""
    found = {
        "new": [item.path for item in plan.new],
        "changed": [pair.item.path for pair in plan.changed],
        "rewritten": [pair.item.path for pair in plan.rewritten],
        "compare": [pair.item.path for pair in plan.compare],
        "deleted": [present.path for present in plan.deleted],
    }
    return {kind: paths for kind, paths in found.items() if paths}


# Files ----------------------------------------------------------------------------------------------------


def test_what_the_disk_lacks_is_new_and_what_is_equal_leaves_nothing_but_a_count() -> None:
    plan = _plan(_folder(a=_file(5), b=_file(6)), known=_holds(_there(_known("b", 6))))
    assert _kinds(plan) == {"new": [b"upload/a"]}
    assert (plan.files, plan.size, plan.unchanged, plan.unchanged_bytes) == (2, 11, 1, 6)
    assert plan.notes == []


@pytest.mark.parametrize(
    ("name", "file", "kind"),
    [
        ("a.jpg", _file(2), "changed"),
        ("a.jpg", _file(0), "changed"),
        ("a.jpg", _file(1, NOW + 1), "compare"),
        ("a.xmp", _file(2), "rewritten"),
        ("a.XMP", _file(1, NOW + 1), "rewritten"),
        (".immich", _file(2), "rewritten"),
    ],
)
def test_a_file_that_is_another_now(name: str, file: SourceFile, kind: str) -> None:
    plan = _plan(Folder(b"", {name.encode(): file}), known=_holds(_there(_known(name))))
    assert _kinds(plan) == {kind: [b"upload/" + name.encode()]}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(Mode.QUICK, {}), (Mode.VERIFY, {"compare": [b"upload/a"]}), (Mode.FULL, {"compare": [b"upload/a"]})],
)
def test_the_mode_says_what_is_done_about_a_file_that_looks_equal(mode: Mode, kind: dict[str, list[bytes]]) -> None:
    assert _kinds(_plan(_folder(a=_file()), known=_holds(_there(_known("a"))), mode=mode)) == kind


def test_another_inode_is_remembered_and_the_manifest_on_the_disk_stays_true() -> None:
    known = _known("a", digest=b"d" * 20, proven=3)
    plan = _plan(_folder(a=_file(inode=8)), known=_holds(_there(known)))
    assert (_kinds(plan), plan.notes) == ({}, [])
    assert plan.inodes == [Change(b"upload/a", known._replace(inode=8))]


def test_in_mode_full_a_sidecar_of_the_same_time_is_compared_before_it_may_replace_the_disks() -> None:
    plan = _plan(_folder(a_xmp=_file()), known=_holds(_there(_known("a.xmp"))), mode=Mode.FULL)
    assert _kinds(plan) == {"compare": [b"upload/a.xmp"]}


def test_a_file_that_did_not_read_back_is_compared_though_its_facts_are_the_same() -> None:
    known = _holds(_there(_known("a.jpg"), _known("b.jpg")))
    plan = _plan(_folder(a_jpg=_file(), b_jpg=_file()), known=known, suspects=frozenset({fold(b"upload/a.jpg")}))
    assert (_kinds(plan), plan.unchanged) == ({"compare": [b"upload/a.jpg"]}, 1)


def test_a_photo_without_a_date_is_copied_once() -> None:
    plan = _plan(_folder(a=_file(mtime_ns=0)), known=_holds(_there(_known("a", mtime_ns=0))))
    assert (_kinds(plan), plan.unchanged) == ({}, 1)


@pytest.mark.parametrize("spelling", [b"upload/sub/a", b"upload/SUB/A"])
@pytest.mark.parametrize(("size", "name", "kind"), [(1, b"a", "compare"), (9, b"a", "compare")])
def test_a_doubtful_file_is_compared_whatever_its_size_and_case(
    spelling: bytes, size: int, name: bytes, kind: str
) -> None:
    known = _holds(
        _there(folders={b"sub": b"sub"}), KnownFolder(b"upload/sub", b"upload/sub", {name: _known(name, size)})
    )
    folders = (_folder(folders=(b"sub",)), Folder(b"sub", {name: _file()}))
    plan = _plan(*folders, known=known, doubtful=frozenset({fold(spelling)}))
    assert _kinds(plan) == {kind: [b"upload/sub/a"]}


def test_a_doubtful_sidecar_of_another_size_is_written_anew() -> None:
    known = _holds(_there(_known("a.xmp", 9)))
    plan = _plan(_folder(a_xmp=_file()), known=known, doubtful=frozenset({fold(b"upload/a.xmp")}))
    assert _kinds(plan) == {"rewritten": [b"upload/a.xmp"]}


def test_room_is_counted_in_whole_clusters() -> None:
    plan = _plan(_folder(a=_file(1), b=_file(4097), c=_file(0)), cluster=4096)
    assert plan.room == 3 * 4096


# What is gone ---------------------------------------------------------------------------------------------

ALBUM = (
    _there(_known("a"), folders={b"album": b"album"}),
    KnownFolder(b"upload/album", b"upload/album", {b"b": _known("b")}, {b"deep?": b"deep_~x"}),
    KnownFolder(b"upload/album/deep?", b"upload/album/deep_~x", {b"c": _known("c")}),
)


def test_a_folder_that_is_gone_is_gone_with_all_below_it() -> None:
    plan = _plan(_folder(), known=_holds(*ALBUM))
    assert [(present.path, present.stored) for present in plan.deleted] == [
        (b"upload/a", b"upload/a"),
        (b"upload/album/b", b"upload/album/b"),
        (b"upload/album/deep?/c", b"upload/album/deep_~x/c"),
    ]
    assert len(list(below(_holds(*ALBUM), b"upload"))) == 3


def test_nothing_is_gone_below_a_folder_that_cannot_be_read() -> None:
    album = Folder(b"album", unreadable=((b"", "Permission denied"),))
    plan = _plan(_folder(a=_file(), folders=(b"album",)), album, known=_holds(*ALBUM))
    assert _kinds(plan) == {}
    assert plan.unreadable == [(b"upload/album", "Permission denied")]


def test_an_entry_that_cannot_be_looked_at_stays() -> None:
    folder = Folder(b"", {}, unreadable=((b"a", "Input/output error"), (b"album", "Input/output error")))
    plan = _plan(folder, known=_holds(*ALBUM))
    assert (_kinds(plan), plan.kept) == ({}, 3)
    assert plan.unreadable == [(b"upload/a", "Input/output error"), (b"upload/album", "Input/output error")]


def test_a_folder_that_went_away_while_it_was_walked_is_left_to_the_next_run() -> None:
    assert _kinds(_plan(_folder(a=_file(), folders=(b"album",)), known=_holds(*ALBUM))) == {}


# What is left out -----------------------------------------------------------------------------------------


def test_what_is_excluded_is_counted_and_stays_where_it_is_on_the_disk() -> None:
    rules = Excludes.parse(["*.tmp", "album/"])
    folder = _folder(a=_file(), x_tmp=_file(50), folders=(b"album",))
    known = _holds(_there(_known("a"), _known("old.tmp"), folders={b"album": b"album"}), *ALBUM[1:])
    plan = _plan(folder, Folder(b"album", {b"new": _file()}), known=known, excludes=rules)
    assert _kinds(plan) == {}
    assert (plan.excluded, plan.excluded_bytes, plan.kept) == (2, 50, 3)
    assert plan.files == 1


def test_a_new_name_does_not_take_the_place_of_an_excluded_one() -> None:
    known = _holds(_there(_known("x.TMP")))
    plan = _plan(_folder(x_tmp=_file()), known=known, excludes=Excludes.parse(["*.TMP"]))
    assert [item.path for item in plan.new] == [b"upload/x.tmp"]
    assert fold(plan.new[0].stored) != fold(b"upload/x.TMP")


def test_sockets_and_devices_are_listed() -> None:
    plan = _plan(Folder(b"", others=((b"s", "socket"),)))
    assert plan.specials == [(b"upload/s", "socket")]


# Links ----------------------------------------------------------------------------------------------------

INSIDE = (b"/srv", b"/mnt/pictures")


@pytest.mark.parametrize(
    ("target", "outside"),
    [
        (b"2020", False),
        (b"../library/x", False),
        (b"/mnt/pictures/a", False),
        (b"/mnt/pictures", False),
        (b"/mnt/pictures2", True),
        (b"../../etc/passwd", True),
        (b"/", True),
    ],
)
def test_a_link_is_remembered_and_one_that_leads_out_is_named(target: bytes, outside: bool) -> None:
    plan = _plan(Folder(b"", links={b"l": target}), inside=INSIDE)
    assert plan.links == 1
    assert plan.links_outside == ([(b"upload/l", target)] if outside else [])
    assert plan.notes == [Change(b"upload/l", Known(b"l", b"", 0, 0, link=target))]


def test_a_link_that_is_known_changes_nothing_and_one_that_is_gone_is_forgotten() -> None:
    known = _holds(_there(Known(b"l", b"", 0, 0, link=b"x"), Known(b"m", b"", 0, 0, link=b"x")))
    plan = _plan(Folder(b"", links={b"l": b"x"}), known=known)
    assert plan.notes == [Change(b"upload/m", None)]
    assert _kinds(plan) == {}


def test_what_lay_in_a_folder_that_is_a_link_now_stays() -> None:
    plan = _plan(Folder(b"", {b"a": _file()}, links={b"album": b"/elsewhere"}), known=_holds(*ALBUM))
    assert (_kinds(plan), plan.kept) == ({}, 2)
    assert plan.links_outside == [(b"upload/album", b"/elsewhere")]


def test_a_file_in_the_place_of_a_link_is_new() -> None:
    plan = _plan(_folder(a=_file()), known=_holds(_there(Known(b"a", b"", 0, 0, link=b"x"))))
    assert _kinds(plan) == {"new": [b"upload/a"]}


# Names ----------------------------------------------------------------------------------------------------


def _stored(name: bytes) -> bytes:
    return stored_names([name], {})[name]


def test_a_name_that_exfat_cannot_hold_is_stored_under_another() -> None:
    plan = _plan(Folder(b"", {b"12:30.jpg": _file(), b"fine.jpg": _file()}))
    assert [(item.path, item.stored) for item in plan.new] == [
        (b"upload/12:30.jpg", b"upload/" + _stored(b"12:30.jpg")),
        (b"upload/fine.jpg", b"upload/fine.jpg"),
    ]
    assert plan.renamed == [(b"upload/12:30.jpg", b"upload/" + _stored(b"12:30.jpg"))]


def test_what_lies_below_a_folder_with_another_name_lies_below_that() -> None:
    plan = _plan(_folder(folders=(b"a?",)), Folder(b"a?", folders=(b"b.",)), Folder(b"a?/b.", {b"c": _file()}))
    here, deep = _stored(b"a?"), _stored(b"b.")
    assert plan.folder_names == {b"upload/a?": here, b"upload/a?/b.": deep}
    assert plan.new[0].stored == b"upload/" + here + b"/" + deep + b"/c"


def test_what_lies_on_the_disk_keeps_its_name_when_a_twin_comes() -> None:
    known = _holds(_there(_known("img.jpg"), folders={b"Bilder": b"Bilder"}))
    folder = Folder(b"", {b"IMG.jpg": _file(2), b"img.jpg": _file()}, (b"BILDER", b"Bilder"))
    plan = _plan(folder, Folder(b"BILDER", {b"x": _file()}), Folder(b"Bilder", {b"y": _file()}), known=known)
    places = {item.path: item.stored for item in plan.new}
    assert places[b"upload/Bilder/y"] == b"upload/Bilder/y"
    assert len({fold(place) for place in (*places.values(), b"upload/img.jpg")}) == 4
    assert plan.unchanged == 1


def test_the_backup_s_own_name_is_free_for_nobody_else_at_the_root_only() -> None:
    plan = _plan(Folder(b"", {b".PARTIAL": _file()}, (b"sub",)), Folder(b"sub", {b".partial": _file()}))
    top, below_it = (item.stored for item in plan.new)
    assert fold(top) != fold(b"upload/.partial")
    assert below_it == b"upload/sub/.partial"


def test_a_file_that_changes_its_case_gets_the_name_that_it_wants() -> None:
    plan = _plan(_folder(img_jpg=_file()), known=_holds(_there(_known("IMG.JPG"))))
    assert [item.stored for item in plan.new] == [b"upload/img.jpg"]
    assert [present.path for present in plan.deleted] == [b"upload/IMG.JPG"]


def test_a_folder_that_changes_its_case_takes_the_place_of_the_old_one() -> None:
    known = _holds(_there(folders={b"foo": b"foo"}), KnownFolder(b"upload/foo", b"upload/foo", {b"a": _known("a")}))
    plan = _plan(_folder(folders=(b"Foo",)), Folder(b"Foo", {b"a": _file()}), known=known)
    assert plan.folder_names == {b"upload/Foo": b"foo"}
    assert [item.stored for item in plan.new] == [b"upload/foo/a"]


def test_immich_s_mark_is_seen() -> None:
    assert _plan(Folder(b"", {b".immich": _file()})).marked
    assert not _plan(_folder(folders=(b"sub",)), Folder(b"sub", {b".immich": _file()})).marked
