"""The plan: what is copied, what leaves the disk, and what is reported because it cannot be."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.policy.mirror import FileFact, Tree, explain, plan_mirror, times_agree
from immich_usb_backup.policy.names import fold

DAY = 86_400 * 10**9
NOW = 1_700_000_000 * 10**9
MARK = {b".immich": FileFact(1, NOW)}


def _tree(**sizes: int) -> Tree:
    """`a__b` is `a/b`; sizes tell contents apart."""
    return _of({name.replace("__", "/").encode(): size for name, size in sizes.items()})


def _of(sizes: dict[bytes, int]) -> Tree:
    return Tree(files=MARK | {path: FileFact(size, NOW) for path, size in sizes.items()})


def test_new_and_changed_files_are_copied_and_equal_ones_left() -> None:
    plan = plan_mirror(_tree(new=5, changed=6, same=7), _tree(changed=1, same=7))
    assert [*plan.copy] == [b"changed", b"new"]
    assert (plan.copy_bytes, plan.unchanged, plan.remove, plan.skipped) == (11, 2, (), ())


def test_a_file_with_another_time_is_copied_and_two_seconds_are_none() -> None:
    source = Tree(files=MARK | {b"a": FileFact(1, NOW), b"b": FileFact(1, NOW)})
    disk = Tree(files=MARK | {b"a": FileFact(1, NOW - 10**9), b"b": FileFact(1, NOW - 3 * 10**9)})
    assert [*plan_mirror(source, disk).copy] == [b"b"]


def test_what_the_source_no_longer_has_is_removed() -> None:
    plan = plan_mirror(_tree(a=1), _tree(a=1, gone=1, sub__gone=2))
    assert plan.remove == (b"gone", b"sub/gone")
    assert plan.kept_reason == ""


def test_room_is_counted_in_whole_clusters() -> None:
    assert plan_mirror(_tree(a=1, b=4097, c=0), _tree()).space_needed(4096) == 3 * 4096


# Names ----------------------------------------------------------------------------------------------------


def test_of_names_that_differ_by_case_the_one_on_the_disk_stays_and_the_other_is_reported() -> None:
    plan = plan_mirror(_of({b"IMG.JPG": 1, b"img.jpg": 2}), _of({b"img.jpg": 2}))
    assert plan.copy == {}
    assert plan.remove == ()
    assert plan.skipped == ((b"IMG.JPG", "exFAT takes it for the same file as img.jpg"),)


def test_without_one_on_the_disk_the_choice_is_the_same_in_every_run() -> None:
    source = _of({b"img.jpg": 2, b"IMG.JPG": 1})
    first = plan_mirror(source, _of({}))
    assert [*first.copy] == [b"IMG.JPG"]
    second = plan_mirror(source, _of({b"IMG.JPG": 1}))
    assert second.copy == {}
    assert second.skipped == first.skipped


def test_a_folder_that_changed_its_case_is_not_copied_again() -> None:
    plan = plan_mirror(_of({b"Holiday/a.jpg": 1}), _of({b"holiday/A.JPG": 1}))
    assert (plan.copy, plan.remove) == ({}, ())


def test_what_exfat_cannot_hold_is_reported_and_does_not_disturb_the_rest() -> None:
    source = replace(_of({b"what?.jpg": 1, b"\xff.jpg": 1, b"f1.8./a": 1, b"good": 1}), others=((b"l", "FIFO"),))
    plan = plan_mirror(source, _of({}))
    assert [*plan.copy] == [b"good"]
    assert [path for path, _ in plan.skipped] == [b"f1.8./a", b"l", b"what?.jpg", b"\xff.jpg"]
    assert dict(plan.skipped)[b"l"] == "it is a FIFO, which exFAT cannot hold"


# Files where folders have to be ---------------------------------------------------------------------------


def test_a_file_gives_way_to_a_folder_before_the_copying() -> None:
    plan = plan_mirror(_of({b"A/b": 1}), _of({b"a": 1}))
    assert (plan.clearing, plan.remove) == ((b"a",), ())


def test_a_folder_gives_way_to_a_file_before_the_copying() -> None:
    plan = plan_mirror(_of({b"a": 1}), _of({b"A/b": 1, b"A/c/d": 1, b"other": 1}))
    assert (plan.clearing, plan.remove) == ((b"A/b", b"A/c/d"), (b"other",))


def test_a_file_beside_a_folder_of_the_same_name_in_another_case_is_reported() -> None:
    plan = plan_mirror(_of({b"a": 1, b"A/b": 1}), _of({}))
    assert [*plan.copy] == [b"A/b"]
    assert plan.skipped == ((b"a", "exFAT takes it for the same as a folder beside it"),)


# Times ----------------------------------------------------------------------------------------------------


def _ns(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("source", "stored", "agree"),
    [
        (0, _ns(1980), True),
        (0, 0, True),
        (-5 * DAY, _ns(1980), True),
        (_ns(2200), _ns(2108) - 10**9, True),
        (0, _ns(1981), False),
        (0, _ns(2020), False),
        (_ns(2200), _ns(2020), False),
        (_ns(2020), _ns(1980), False),
        (NOW, NOW + 10**7, True),
        (NOW, NOW + 3600 * 10**9, False),
    ],
)
def test_times_beyond_what_exfat_knows_agree_with_its_bounds_only(source: int, stored: int, agree: bool) -> None:
    assert times_agree(source, stored) is agree


# Nothing is removed in doubt ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (Tree(), "mark .immich is missing"),
        (Tree(files={b"a": FileFact(1, NOW)}), "mark .immich is missing"),
        (Tree(files=MARK), "the source is empty"),
        (replace(_tree(a=1), unreadable=((b"u1", "Permission denied"),)), "1 folder or file of the source could not"),
    ],
)
def test_nothing_is_removed_from_the_disk_in_doubt(source: Tree, reason: str) -> None:
    plan = plan_mirror(source, _of({b"a/b": 1, b"photo": 1}))
    assert (plan.remove, plan.clearing) == ((), ())
    assert reason in plan.kept_reason
    assert "stay on the disk" in plan.kept_reason


def test_an_empty_source_and_an_empty_disk_are_fine() -> None:
    assert plan_mirror(Tree(files=MARK), Tree()).kept_reason == ""
    assert plan_mirror(Tree(files=MARK), Tree(files=MARK)).kept_reason == ""


# Whatever the names are -----------------------------------------------------------------------------------

PART = st.sampled_from(["a", "A", "b", "ä", "Ä", "x.", "q?", "\udcff", "ß", "ı"])
PATH = st.lists(PART, min_size=1, max_size=3).map(lambda parts: os.fsencode("/".join(parts)))
FACT = st.builds(FileFact, st.integers(0, 2), st.sampled_from([NOW, 0]))


def _possible(files: dict[bytes, FileFact]) -> dict[bytes, FileFact]:
    """No path is both a file and a folder, as in any file system."""
    return {path: fact for path, fact in files.items() if not any(other.startswith(path + b"/") for other in files)}


def _on_exfat(files: dict[bytes, FileFact]) -> dict[bytes, FileFact]:
    folded = {fold(path): path for path in files}
    kept = {path for key, path in folded.items() if not any(other.startswith(key + "/") for other in folded)}
    return {path: fact for path, fact in files.items() if path in kept}


FILES = st.dictionaries(PATH, FACT, max_size=8).map(_possible)


@given(FILES, FILES.map(_on_exfat))
def test_every_file_is_stored_or_reported_and_no_two_are_one(
    source: dict[bytes, FileFact], disk: dict[bytes, FileFact]
) -> None:
    plan = plan_mirror(Tree(files=MARK | source), Tree(files=disk))
    skipped = {path for path, _ in plan.skipped}
    assert len(skipped) == len(plan.skipped)
    assert not skipped & plan.copy.keys()
    assert plan.unchanged + len(plan.copy) + len(skipped) == len(source) + 1
    folded = [fold(path) for path in (MARK | source) if path not in skipped]
    assert len(set(folded)) == len(folded)
    assert not any(one.startswith(other + "/") for one in folded for other in folded)
    leaving = set(plan.remove) | set(plan.clearing)
    assert leaving <= disk.keys()
    assert not leaving & {path for path in disk if fold(path) in folded}


@given(FILES)
def test_a_second_run_finds_nothing_to_do(source: dict[bytes, FileFact]) -> None:
    first = plan_mirror(Tree(files=MARK | source), Tree())
    second = plan_mirror(Tree(files=MARK | source), Tree(files=dict(first.copy)))
    assert (second.copy, second.remove, second.clearing) == ({}, (), ())
    assert second.skipped == first.skipped


def test_what_rsync_said_of_a_file_is_its_reason() -> None:
    complaints = ('rsync: [receiver] mkstemp "/x/b.jpg" failed: Invalid argument (22)', "rsync error: some files")
    failed = ((b"a/b.jpg", "it did not arrive"), (b"a/c.jpg", "it did not arrive"))
    assert explain(failed, complaints) == ((b"a/b.jpg", "Invalid argument (22)"), (b"a/c.jpg", "it did not arrive"))


def test_an_original_whose_size_changed_is_kept_and_a_sidecar_is_not() -> None:
    source = _of({b"a.jpg": 0, b"b.jpg": 5, b"b.jpg.xmp": 9, b"c.jpg": 3})
    plan = plan_mirror(source, _of({b"a.jpg": 7, b"b.jpg": 4, b"b.jpg.xmp": 8, b"c.jpg": 3}))
    assert plan.changed == (b"a.jpg", b"b.jpg")
    assert plan.emptied == 1
    assert {b"a.jpg", b"b.jpg", b"b.jpg.xmp"} <= plan.copy.keys()
    assert plan.replaced.keys() & {b"a.jpg", b"b.jpg"} == set()  # what is kept frees no room


def test_what_lies_behind_a_link_of_the_source_stays_on_the_disk() -> None:
    source = _of({b"2020/a.jpg": 1})
    linked = Tree(files=source.files, others=((b"2019", "symbolic link"),))
    plan = plan_mirror(linked, _of({b"2019/x/old.jpg": 1, b"2020/a.jpg": 1, b"2018/gone.jpg": 1}))
    assert plan.remove == (b"2018/gone.jpg",)
    assert [path for path, _ in plan.skipped] == [b"2019"]


def test_a_folder_called_as_ours_is_named_and_not_copied() -> None:
    plan = plan_mirror(_of({b".PARTIAL/a": 1, b"x/.partial": 1}), _of({}))
    assert [path for path, _ in plan.skipped] == [b".PARTIAL/a"]
    assert b"x/.partial" in plan.copy
