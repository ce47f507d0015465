"""A stick that is being read back: pulled, and ejected, by a user who does not want to wait."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio

from tests.vm.backup import COMMAND, Backup, marked_image

READING = "reading photos back from the disk"
EACH_TIME = "[verification]\nagain_after_days = 0"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stick(server: Backup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stick with a whole backup, on a server that reads everything back each time."""
    await server.start_over(EACH_TIME, grace_seconds=0, mail=False)
    image = marked_image(tmp_path_factory.mktemp("verify") / "blue.img")
    await server.make_it_slow(32)
    first = await server.plug_in(image)
    assert first.outcome in {"ok", "partial"}, first.story
    return image


@pytest_asyncio.fixture(loop_scope="session")
async def backup(server: Backup) -> Backup:
    """The server as the test before left it."""
    await server.from_now_on()
    return server


async def _plug_in_to_be_read(backup: Backup, image: Path) -> None:
    """The stick is plugged in again, and so slow that it is read for a minute."""
    guest = backup.guest
    await guest.plug("blue", image)
    group = {"path": f"/objects/{guest._plugged['blue'].throttle}", "property": "limits"}
    await guest.qmp("qom-set", {**group, "value": {"bps-read": 500_000}})
    await guest.until(f"systemctl show -p StatusText --value immich-usb-backup | grep '{READING}'", timeout=120)


async def test_a_stick_that_is_pulled_while_it_is_read_back_lost_nothing(backup: Backup, stick: Path) -> None:
    await _plug_in_to_be_read(backup, stick)
    await backup.guest.pull("blue")
    pulled = await backup.ended()
    assert pulled.outcome == "interrupted", pulled.story
    assert "everything is on it, nothing is lost" in pulled.story
    after = await backup.plug_in(stick)
    assert after.outcome in {"ok", "partial"}, after.story
    assert not after.walked, after.story
    assert not {"last-run-unfinished", "disk-rotten", "file-system-unclean"} & set(after.findings)
    assert "Read again from the disk" in after.story
    assert await backup.differences(stick) == []


async def test_eject_ends_the_reading_and_answers_when_it_may_be_unplugged(backup: Backup, stick: Path) -> None:
    await _plug_in_to_be_read(backup, stick)
    disk = await backup.guest.device("blue")
    ejected = await backup.guest.sh(f"{COMMAND} eject Blue", timeout=120)
    assert ejected.stdout == "'Blue' is unmounted: safe to unplug.\n"
    assert not await backup.is_mounted(disk)
    ended = await backup.ended()
    assert ended.outcome in {"ok", "partial"}, ended.story
    assert "left for the next time" in ended.story
    await backup.guest.pull("blue")
    after = await backup.plug_in(stick)
    assert not after.walked, after.story
