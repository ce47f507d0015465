"""The real rsync as our copier, into a plain folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from immich_usb_backup.adapters.rsync import Rsync
from immich_usb_backup.errors import CommandFailed
from immich_usb_backup.ports import CopyResult, Target
from tests.support.fakes import World

ODD = [b"#kids/a", b";b", b"-c", b"--server", b" d", b"e\nf", b"g:h", b"[i]*?", b"caf\xe9", b"deep/er/#j", b"empty"]


@pytest.fixture
async def target(tmp_path: Path) -> Target:
    world = World(tmp_path)
    stick = world.stick()
    world.devices.plugged[stick.seen.plug_in] = stick
    mount = await world.disks.mount(await world.disks.find(stick.seen), read_only=False)
    return await world.targets.open(mount, marker_entry=None)


async def _copy(source: Path, target: Target, paths: list[bytes], seen: list[int] | None = None) -> CopyResult:
    return await Rsync().copy(source, target, "upload", paths, (seen if seen is not None else []).append)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for path in ODD:
        file = root / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"" if path == b"empty" else path)
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return root


async def test_every_name_is_copied_whatever_rsync_could_take_it_for(source: Path, target: Target) -> None:
    seen: list[int] = []
    result = await _copy(source, target, ODD, seen)
    assert (result.finished, result.complaints) == (True, ()), result
    for path in ODD:
        copy = Path(target.working_folder, "upload", os.fsdecode(path))
        assert copy.read_bytes() == (b"" if path == b"empty" else path)
        assert copy.stat().st_mtime == 1_700_000_000
    assert seen[-1] == sum(len(path) for path in ODD if path != b"empty")
    assert not Path(target.working_folder, "upload/.partial").exists()


async def test_only_what_is_listed_is_touched(source: Path, target: Target) -> None:
    there = Path(target.working_folder, "upload")
    there.mkdir()
    (there / "mine").write_bytes(b"mine")
    await _copy(source, target, [b"empty"])
    assert sorted(path.name for path in there.iterdir()) == ["empty", "mine"]


async def test_a_file_that_vanished_is_a_complaint_and_the_others_arrive(source: Path, target: Target) -> None:
    result = await _copy(source, target, [b"gone", b"empty"])
    assert result.finished
    assert "gone" in str(result.complaints)
    assert Path(target.working_folder, "upload/empty").exists()


async def test_a_missing_rsync_is_said(source: Path, target: Target) -> None:
    with pytest.raises(CommandFailed, match="cannot be started"):
        await Rsync("no-such-rsync").copy(source, target, "upload", [b"empty"], lambda _: None)


async def test_a_cancelled_copy_leaves_no_process_behind(source: Path, target: Target, tmp_path: Path) -> None:
    hanging = tmp_path / "hanging-rsync"
    pid = tmp_path / "pid"
    hanging.write_text(f"#!/bin/sh\necho $$ > {pid}.new; mv {pid}.new {pid}\nexec sleep 600\n")
    hanging.chmod(0o755)
    copying = asyncio.ensure_future(Rsync(str(hanging)).copy(source, target, "upload", [b"empty"], lambda _: None))
    async with asyncio.timeout(10):
        while not pid.exists():
            await asyncio.sleep(0.01)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


async def test_many_small_files_are_told_of_together(target: Target, tmp_path: Path) -> None:
    paths = [b"%d" % number for number in range(2000)]
    for path in paths:
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / os.fsdecode(path)).write_bytes(b"x")
    seen: list[int] = []
    await _copy(tmp_path / "source", target, paths, seen)
    assert seen[-1] == 2000
    assert len(seen) < 60, len(seen)
