"""The folders' plans together: what was moved, what the contents say, and what is to be done."""

from __future__ import annotations

from typing import Any

import pytest

from immich_usb_backup.model import Mode
from immich_usb_backup.policy.manifest import Change, Known, SourceFile
from immich_usb_backup.policy.names import fold
from immich_usb_backup.policy.plan import FolderPlan, Item, Pair, Present, Rules
from immich_usb_backup.policy.whole_plan import Digests, Plan, Steps, combine, known_after_copy, settle

NOW = 1_700_000_000 * 10**9
ONE, TWO, THREE = b"1" * 20, b"2" * 20, b"3" * 20


def _item(path: bytes, size: int = 5, inode: int = 1, mtime_ns: int = NOW, stored: bytes | None = None) -> Item:
    return Item(path, stored or path, SourceFile(size, mtime_ns, inode))


def _present(path: bytes, size: int = 5, inode: int = 1, stored: bytes | None = None, **more: Any) -> Present:
    place = stored or path
    known = Known(path.rpartition(b"/")[2], place.rpartition(b"/")[2], size, NOW, inode)._replace(**more)
    return Present(path, place, known)


def _folder(
    name: bytes = b"upload", *, doubtful: tuple[bytes, ...] = (), mode: Mode = Mode.QUICK, **lists: object
) -> FolderPlan:
    rules = Rules(name=name, source=b"/srv/" + name, mode=mode, doubtful=frozenset(map(fold, doubtful)))
    return FolderPlan(rules=rules, **lists)  # type: ignore[arg-type]


def _settle(plan: Plan, *, held: bool = False, doubtful: tuple[bytes, ...] = (), **digests: Digests) -> Steps:
    found = {f"upload/{name}".encode(): digest for name, digest in digests.items()}
    return settle(plan, found, held=held, doubtful=frozenset(doubtful), now=99)


# What was moved -------------------------------------------------------------------------------------------


def test_the_same_inode_size_and_time_is_a_move_from_one_folder_to_another() -> None:
    plan = combine([_folder(deleted=[_present(b"upload/a")]), _folder(b"library", new=[_item(b"library/b")])])
    assert [(pair.present.path, pair.item.path) for pair in plan.moved] == [(b"upload/a", b"library/b")]
    steps = _settle(plan)
    assert (len(steps.moves), steps.copy, steps.aside) == (1, [], [])


@pytest.mark.parametrize(
    "other", [_item(b"upload/b", size=6), _item(b"upload/b", mtime_ns=NOW + 1), _item(b"upload/b", inode=2)]
)
def test_anything_else_is_no_move(other: Item) -> None:
    plan = combine([_folder(new=[other], deleted=[_present(b"upload/a")])])
    assert plan.moved == plan.alike == []
    assert [i.path for i in _settle(plan).copy] == [b"upload/b"]


def test_inodes_that_are_not_known_are_not_the_same() -> None:
    plan = combine([_folder(new=[_item(b"upload/b", inode=0)], deleted=[_present(b"upload/a", inode=0)])])
    assert plan.moved == []


def test_each_file_on_the_disk_is_moved_once() -> None:
    plan = combine([_folder(new=[_item(b"upload/b"), _item(b"upload/c")], deleted=[_present(b"upload/a")])])
    steps = _settle(plan)
    assert (len(steps.moves), len(steps.copy), steps.aside) == (1, 1, [])


@pytest.mark.parametrize(("content", "moved"), [(ONE, True), (TWO, False), (None, False), ("I/O error", False)])
def test_without_inodes_the_content_tells(content: bytes | str | None, moved: bool) -> None:
    gone = _present(b"upload/a", inode=0, digest=ONE)
    plan = combine([_folder(new=[_item(b"upload/b")], deleted=[gone])])
    assert len(plan.alike) == 1
    steps = _settle(plan, b=Digests(content, None))
    assert bool(steps.moves) is moved
    assert [i.path for i in steps.copy] == ([] if moved else [b"upload/b"])
    assert steps.aside == ([] if moved else [gone])


def test_a_file_that_may_not_be_whole_is_not_moved() -> None:
    gone = _present(b"upload/A", digest=ONE)
    plan = combine([_folder(new=[_item(b"upload/b")], deleted=[gone], doubtful=(b"upload/a",))])
    assert plan.moved == plan.alike == []


@pytest.mark.parametrize("size", [5, 6])
def test_two_files_that_change_their_names_are_moved(size: int) -> None:
    swapped = [
        Pair(_item(b"upload/a", size, inode=2), _present(b"upload/a")),
        Pair(_item(b"upload/b"), _present(b"upload/b", size, inode=2)),
    ]
    folder = _folder(compare=swapped) if size == 5 else _folder(changed=swapped)
    plan = combine([folder])
    assert (len(plan.moved), plan.changed, plan.compare, plan.new, plan.deleted) == (2, [], [], [], [])


def test_a_chain_of_new_names_sets_the_first_one_aside_and_copies_the_last() -> None:
    pairs = [
        Pair(_item(b"upload/a", 6, inode=2), _present(b"upload/a")),
        Pair(_item(b"upload/b", 7, inode=3), _present(b"upload/b", 6, inode=2)),
    ]
    steps = _settle(combine([_folder(changed=pairs)]))
    assert [(p.present.path, p.item.path) for p in steps.moves] == [(b"upload/b", b"upload/a")]
    assert [p.path for p in steps.aside] == [b"upload/a"]
    assert [i.path for i in steps.copy] == [b"upload/b"]


# What lies in its place under another name ----------------------------------------------------------------


@pytest.mark.parametrize("guessed", [True, False])
def test_what_exfat_takes_for_the_same_stays_where_it_is(guessed: bool) -> None:
    there = _present(b"upload/12_30~x.JPG", inode=0, guessed=guessed)
    plan = combine([_folder(new=[_item(b"upload/12:30.jpg", stored=b"upload/12_30~X.jpg")], deleted=[there])])
    steps = _settle(plan)
    assert not steps.touches_disk
    line = Known(b"12:30.jpg", b"12_30~x.JPG", 5, NOW, 1)
    assert steps.notes == [Change(there.path, None), Change(b"upload/12:30.jpg", line)]
    assert plan.folders[0].unchanged == 1


def test_a_guessed_file_with_a_rounded_time_is_the_server_s_and_one_with_another_is_compared() -> None:
    for distance, compared in ((10**9, 0), (10**10, 1)):
        there = _present(b"upload/A", inode=0, guessed=True, mtime_ns=NOW - distance)
        assert len(combine([_folder(new=[_item(b"upload/a")], deleted=[there])]).compare) == compared


@pytest.mark.parametrize("mode", [Mode.VERIFY, Mode.FULL])
def test_a_line_is_not_left_under_the_old_name(mode: Mode) -> None:
    there = _present(b"upload/A", inode=0, guessed=True)
    plan = combine([_folder(new=[_item(b"upload/a")], deleted=[there], mode=mode)])
    for digests in (Digests(ONE, ONE), Digests(ONE, None)):
        assert Change(b"upload/A", None) in _settle(plan, a=digests).notes


def test_another_file_in_its_place_is_set_aside() -> None:
    plan = combine([_folder(new=[_item(b"upload/a", 9)], deleted=[_present(b"upload/A", inode=0)])])
    steps = _settle(plan)
    assert ([p.path for p in steps.aside], [i.path for i in steps.copy]) == ([b"upload/A"], [b"upload/a"])


# What the contents say ------------------------------------------------------------------------------------


def _compared(
    found: Digests, *, held: bool = False, doubtful: bool = False, edited: bool = False, **known: Any
) -> Steps:
    item = _item(b"upload/a", mtime_ns=NOW + edited)
    plan = combine([_folder(compare=[Pair(item, _present(b"upload/a", **known))])])
    return _settle(plan, held=held, doubtful=(b"upload/A",) if doubtful else (), a=found)


def _verdict(steps: Steps) -> str:
    lists = {"rotten": steps.rotten, "suspicious": steps.suspicious, "different": steps.different}
    lists |= {"aside": steps.aside, "discard": steps.discard, "copy": steps.copy, "times": steps.times}  # type: ignore[dict-item]
    return " ".join(word for word, entries in lists.items() if entries)


@pytest.mark.parametrize(
    ("found", "digest", "edited", "verdict"),
    [
        (Digests(ONE, ONE), b"", False, ""),
        (Digests(ONE, ONE), TWO, True, "times"),
        (Digests(ONE, TWO), ONE, False, "rotten aside copy"),
        (Digests(ONE, TWO), ONE, True, "rotten aside copy"),
        (Digests(TWO, ONE), ONE, False, "suspicious"),
        (Digests(TWO, ONE), ONE, True, "aside copy"),
        (Digests(TWO, ONE), b"", False, "different aside copy"),
        (Digests(TWO, ONE), THREE, False, "different aside copy"),
        (Digests(TWO, ONE), b"", True, "aside copy"),
        (Digests(ONE, None), ONE, False, "copy"),
        (Digests(ONE, "I/O error"), b"", False, "rotten aside copy"),
        (Digests(None, ONE), ONE, False, ""),
        (Digests("I/O error", ONE), ONE, False, ""),
    ],
)
def test_the_verdict_on_two_files_of_one_size(found: Digests, digest: bytes, edited: bool, verdict: str) -> None:
    assert _verdict(_compared(found, digest=digest, edited=edited)) == verdict


@pytest.mark.parametrize(
    ("found", "digest", "edited", "verdict"),
    [
        (Digests(ONE, TWO), ONE, False, "rotten aside copy"),
        (Digests(ONE, "I/O error"), b"", False, "rotten aside copy"),
        (Digests(TWO, ONE), b"", False, "different"),
        (Digests(TWO, ONE), b"", True, ""),
        (Digests(ONE, ONE), b"", True, "times"),
    ],
)
def test_while_files_are_held_only_a_bad_copy_is_replaced(
    found: Digests, digest: bytes, edited: bool, verdict: str
) -> None:
    assert _verdict(_compared(found, digest=digest, edited=edited, held=True)) == verdict


@pytest.mark.parametrize(
    ("found", "digest", "verdict"),
    [
        (Digests(ONE, ONE), b"", ""),
        (Digests(ONE, TWO), b"", "discard copy"),
        (Digests(ONE, TWO), THREE, "discard copy"),
        (Digests(ONE, TWO), TWO, "suspicious"),
        (Digests(ONE, "I/O error"), b"", "discard copy"),
        (Digests(ONE, None), b"", "copy"),
    ],
)
@pytest.mark.parametrize("held", [True, False])
def test_what_was_being_written_is_written_again_and_never_held(
    found: Digests, digest: bytes, verdict: str, held: bool
) -> None:
    assert _verdict(_compared(found, digest=digest, doubtful=True, held=held)) == verdict


def test_what_was_proven_is_remembered_with_its_time() -> None:
    steps = _compared(Digests(ONE, ONE))
    assert steps.notes == [Change(b"upload/a", Known(b"a", b"a", 5, NOW, 1, ONE, 99))]
    assert steps.same == 1


@pytest.mark.parametrize(
    ("found", "copied", "kept"),
    [
        (Digests(ONE, ONE), 1, True),
        (Digests(TWO, ONE), 0, True),
        (Digests(ONE, TWO), 1, False),
        (Digests(None, ONE), 0, True),
    ],
)
def test_to_copy_all_again_is_no_reason_to_copy_what_is_damaged_on_the_server(
    found: Digests, copied: int, kept: bool
) -> None:
    pair = Pair(_item(b"upload/a"), _present(b"upload/a", digest=ONE))
    steps = settle(
        combine([_folder(compare=[pair])]), {b"upload/a": found}, held=False, doubtful=frozenset(), now=9, again=True
    )
    assert (len(steps.copy), not steps.aside) == (copied, kept)


def test_a_file_that_cannot_be_read_on_the_server_is_named() -> None:
    assert _compared(Digests("Permission denied", ONE)).unreadable == [(b"upload/a", "Permission denied")]


# Held -----------------------------------------------------------------------------------------------------


def test_what_is_held_stays_and_what_is_new_is_copied() -> None:
    changed = Pair(_item(b"upload/c", 9), _present(b"upload/c", inode=3))
    plan = combine([_folder(new=[_item(b"upload/n", inode=8)], deleted=[_present(b"upload/a")], changed=[changed])])
    steps = _settle(plan, held=True)
    assert (steps.aside, [i.path for i in steps.copy]) == ([], [b"upload/n"])
    steps = _settle(plan)
    assert sorted(p.path for p in steps.aside) == [b"upload/a", b"upload/c"]


@pytest.mark.parametrize(
    ("held", "new"),
    [
        (b"upload/IMG.JPG", b"upload/img.jpg"),
        (b"upload/album", b"upload/Album/x.jpg"),
        (b"upload/album/x.jpg", b"upload/ALBUM"),
        (b"upload/album/x.jpg", b"upload/Album/y.jpg"),
    ],
)
def test_nothing_comes_to_the_place_of_a_file_that_is_held(held: bytes, new: bytes) -> None:
    folder = _folder(new=[_item(new, 9, inode=2)], deleted=[_present(held)])
    steps = _settle(combine([folder]), held=True)
    assert (steps.copy, steps.waiting) == ([], [new])
    assert _settle(combine([folder])).waiting == []


def test_a_move_to_the_place_of_a_held_file_waits_and_so_does_what_would_follow_it() -> None:
    new = [_item(b"upload/a", inode=2), _item(b"upload/b", inode=3)]
    gone = [_present(b"upload/A", 6), _present(b"upload/B", inode=2), _present(b"upload/c", inode=3)]
    steps = _settle(combine([_folder(new=new, deleted=gone)]), held=True)
    assert (steps.moves, steps.aside, sorted(steps.waiting)) == ([], [], [b"upload/a", b"upload/b"])


def test_a_link_does_not_take_the_line_of_a_file_that_is_held() -> None:
    link = Change(b"upload/a", Known(b"a", b"", 0, 0, link=b"x"))
    below = Change(b"upload/a/l", Known(b"l", b"", 0, 0, link=b"x"))
    other = Change(b"upload/l", Known(b"l", b"", 0, 0, link=b"x"))
    plan = combine([_folder(deleted=[_present(b"upload/a")], notes=[link, below, other])])
    assert _settle(plan, held=True).notes == [other]
    assert _settle(plan).notes == [link, below, other]


# Room, and lines ------------------------------------------------------------------------------------------


def test_room_is_for_what_is_new_and_for_one_file_beside_the_one_that_it_replaces() -> None:
    rewritten = [Pair(_item(b"upload/%d" % n, 4096), _present(b"upload/%d" % n, 4096)) for n in range(100)]
    steps = _settle(combine([_folder(rewritten=rewritten, mode=Mode.FULL)]))
    assert steps.room(4096) == 4096
    steps = _settle(combine([_folder(new=[_item(b"upload/a", 1), _item(b"upload/b", 4097), _item(b"upload/c", 0)])]))
    assert (steps.room(4096), steps.copy_bytes) == (3 * 4096, 4098)
    changed = [Pair(_item(b"upload/a", 9), _present(b"upload/a"))]
    assert _settle(combine([_folder(changed=changed)])).room(4096) == 4096  # what is kept frees no room


def test_a_file_that_changed_before_it_was_copied_has_no_inode_that_could_be_trusted() -> None:
    item = _item(b"upload/12:30", stored=b"upload/12_30~x")
    assert known_after_copy(item, size=5, mtime_ns=NOW) == Known(b"12:30", b"12_30~x", 5, NOW, 1)
    assert known_after_copy(item, size=6, mtime_ns=NOW) == Known(b"12:30", b"12_30~x", 6, NOW, 0)


# With Immich's own checksum -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "noted", "kind"),
    [
        (Digests(ONE, TWO, ONE), b"", "rotten"),
        (Digests(ONE, "I/O error", b""), b"", "rotten"),
        (Digests(TWO, ONE, ONE), b"", "suspicious"),
        (Digests(TWO, ONE, ONE), TWO, "suspicious"),  # what was noted was not what was uploaded, and the disk has that
        (Digests(TWO, THREE, ONE), b"", "different"),
        (Digests(TWO, THREE, b""), ONE, "different"),
        (Digests(ONE, TWO, ONE), TWO, ""),  # the upload has come back on the server: nobody need look at it
    ],
)
def test_the_upload_tells_which_side_went_bad(found: Digests, noted: bytes, kind: str) -> None:
    pair = Pair(_item(b"upload/a"), _present(b"upload/a", digest=noted))
    steps = _settle(combine([_folder(compare=[pair])]), a=found)
    lists = {"rotten": steps.rotten, "suspicious": steps.suspicious, "different": steps.different}
    assert {name for name, paths in lists.items() if paths} == ({kind} if kind else set())
    assert [item.path for item in steps.copy] == ([] if kind == "suspicious" else [b"upload/a"])
    assert steps.aside == ([] if kind == "suspicious" else [pair.present])


def test_what_was_edited_is_copied_though_the_disk_has_the_upload() -> None:
    pair = Pair(_item(b"upload/a", mtime_ns=NOW + 10**9), _present(b"upload/a"))
    steps = _settle(combine([_folder(compare=[pair])]), a=Digests(TWO, ONE, ONE))
    assert ([item.path for item in steps.copy], steps.aside) == ([b"upload/a"], [pair.present])
    assert [steps.suspicious, steps.different, steps.rotten] == [[], [], []]


def test_a_suspect_is_not_moved_unread() -> None:
    folder = FolderPlan(
        rules=Rules(name=b"upload", source=b"/srv/upload", suspects=frozenset({fold(b"upload/a")})),
        new=[_item(b"upload/b")],
        deleted=[_present(b"upload/a")],
    )
    steps = _settle(combine([folder]))
    assert (steps.moves, [item.path for item in steps.copy]) == ([], [b"upload/b"])
