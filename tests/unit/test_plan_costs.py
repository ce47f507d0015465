"""What a plan over a large library asks for, counted: it must not grow unnoticed. Seconds are for bench/plan.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from immich_usb_backup.adapters.manifest import SqliteManifest, SqliteManifests
from immich_usb_backup.policy.manifest import Change, Folder, Known, KnownFolder, SourceFile
from immich_usb_backup.policy.plan import FolderPlan, Rules, plan_folder

FOLDERS = [b"u", *(b"u/%02x" % number for number in range(40))]
RULES = Rules(name=b"upload", source=b"/srv/upload")


def _library() -> list[Folder]:
    files = {b"%d.jpg" % number: SourceFile(4_000_000, 10**18 + number, number + 1) for number in range(5)}
    top = Folder(b"", folders=(b"u",))
    users = Folder(b"u", files=files, folders=tuple(path.rpartition(b"/")[2] for path in FOLDERS[1:]))
    return [top, users, *(Folder(path, files=files) for path in FOLDERS[1:])]


def _statements(manifest: SqliteManifest) -> list[str]:
    seen: list[str] = []
    manifest._database.set_trace_callback(seen.append)
    return seen


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[SqliteManifest]:
    opened = await SqliteManifests(tmp_path).open("BENCH")
    changes = [
        Change(b"upload/" + folder.path + b"/" + name, Known(name, name, *file))
        for folder in _library()
        for name, file in folder.files.items()
    ]
    await opened.apply(changes)
    await opened.commit()
    yield opened
    await opened.close()


async def test_a_folder_costs_three_questions_to_the_manifest(manifest: SqliteManifest) -> None:
    asked = _statements(manifest)
    plan = plan_folder(_library(), manifest.folder, RULES)
    assert plan.unchanged == 5 * len(FOLDERS)
    assert len(asked) <= 3 * (len(FOLDERS) + 1) + 1, asked  # and the beginning of the transaction


async def test_a_new_folder_costs_one_question(tmp_path: Path) -> None:
    empty = await SqliteManifests(tmp_path).open("EMPTY")
    asked = _statements(empty)
    plan = plan_folder(_library(), empty.folder, RULES)
    assert len(plan.new) == 5 * len(FOLDERS)
    assert len(asked) <= len(FOLDERS) + 2, asked
    await empty.close()


def test_what_is_equal_leaves_nothing_behind() -> None:
    assert _lists(_plan_of_equals()) == {}


def _plan_of_equals() -> FolderPlan:
    known = {}
    for folder in _library():
        path = b"upload/" + folder.path if folder.path else b"upload"
        files = {name: Known(name, name, *file) for name, file in folder.files.items()}
        known[path] = KnownFolder(path, path, files, {name: name for name in folder.folders})
    return plan_folder(_library(), known.get, RULES)


def _lists(plan: FolderPlan) -> dict[str, object]:
    names = ("new", "changed", "rewritten", "compare", "deleted", "notes", "folder_names", "renamed")
    return {name: getattr(plan, name) for name in names if getattr(plan, name)}


def test_a_new_file_with_its_own_name_keeps_one_path_and_not_two() -> None:
    plan = plan_folder(_library(), lambda _: None, RULES)
    assert plan.new
    assert all(item.path is item.stored for item in plan.new)
