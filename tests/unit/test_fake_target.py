"""The fake disk in the middle of a batch: what was done before a failure or a pull is done, and nothing after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.fakes import Stick, World, partition_of

from immich_usb_backup.errors import DiskFull, DiskGone
from immich_usb_backup.ports import Target


@pytest.fixture
def stick(world: World) -> Stick:
    stick = world.stick()
    world.devices.plug(stick)
    for name in ("1", "2", "3"):
        (stick.backups / "upload").mkdir(exist_ok=True)
        (stick.backups / "upload" / name).write_text(name)
    return stick


async def _open(world: World, stick: Stick) -> Target:
    mount = await world.disks.mount(partition_of(stick), read_only=False)
    return await world.targets.open(mount, marker_entry=None)


def _below(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


PAIRS = [(b"upload/%d" % number, b"library/%d" % number) for number in (1, 2, 3)]


async def test_a_step_within_a_batch_can_fail(world: World, stick: Stick) -> None:
    target = await _open(world, stick)
    done: list[str] = []

    def full() -> None:
        done.append("one")
        if len(done) == 3:
            raise DiskFull("full")

    world.script.do_at("target.move one", full)
    with pytest.raises(DiskFull):
        await target.move(PAIRS, beside=False)
    assert _below(stick.backups / "library") == {"1", "2"}
    assert _below(stick.backups / "upload") == {"3"}


async def test_a_stick_can_be_pulled_within_a_batch(world: World, stick: Stick, tmp_path: Path) -> None:
    target = await _open(world, stick)
    (tmp_path / "new").write_text("new")
    world.script.do_at("target.copy_in one", lambda: world.devices.pull(stick))
    with pytest.raises(DiskGone):
        await target.copy_in(tmp_path, {b"new": b"upload/new"}, lambda _: None)
    assert _below(stick.backups / "upload") == {"1", "2", "3"}
    with pytest.raises(DiskGone):
        await target.fingerprint()


async def test_free_room_is_what_the_files_leave(world: World, stick: Stick) -> None:
    target = await _open(world, stick)
    cluster = await target.cluster_bytes()
    before, seen = await target.free_bytes(), await target.fingerprint()
    (stick.root / "film").write_bytes(b"x" * (cluster + 1))
    assert await target.free_bytes() == before - 2 * cluster
    assert (await target.fingerprint()).free_clusters == seen.free_clusters - 2
    assert (await target.fingerprint()).entries == seen.entries
