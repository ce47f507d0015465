"""The stick is pulled at random moments, again and again; what it carried stays whole, and the next plug-in completes it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.vm.backup import (
    DAEMON,
    MEDIA,
    OURS,
    Backup,
    Ended,
    everything_else,
    hashes_of_others,
    marked_image,
    originals_below,
    sha256,
)
from tests.vm.image import mounted_exfat

SEED = int(os.environ.get("IMMICH_USB_BACKUP_PULL_SEED", "20261121"))
OWNERS = {"holiday.txt": b"mine", "Photos/old.jpg": bytes(range(256)) * 1000}
STICK = f"/media/immich-usb-backup/Blue/{OURS}"
PORTION = 20
"""Files in a portion, instead of 10,000: then there is a time between two of them."""
ROUNDS = int(os.environ.get("IMMICH_USB_BACKUP_PULLS", "1"))
"""Pulls at each kind of moment. 5 makes 25 pulls and takes a quarter of an hour."""
LATE = 5
"""How often in a row a run may be over before the pull of one kind comes. It is done again, each time on a stick half as
fast, and with a pull that comes in half the time."""
_MANAGER = "busctl call io.github.immich_usb_backup1 /io/github/immich_usb_backup1 io.github.immich_usb_backup1.Manager"
_BACKUP = f"{_MANAGER} Backup ss Blue ''"

# In the guest, as some moments are shorter than a call to it takes. It ends when the stick is let go of, too.
_WAIT = f"""
pid=$(systemctl show --property=MainPID --value {DAEMON})
until {{sight}}; do sleep 0.05; grep -q {STICK.rpartition("/")[0]} /proc/mounts || exit 0; done 2>/dev/null
sleep {{pause}}; {{then}}
"""
_HALT = "kill -STOP $pid"


@dataclass(frozen=True)
class Moment:
    """A pull comes up to so many ``seconds`` after the journal or the stick shows something (``code`` and ``stage`` of an
    event, and then ``sight``, a command). ``before`` and ``then``: what the stick can write until then and from then on, in
    bytes a second; ``files``: how many are new. ``halt``: the service stands still at that moment, as what is left of the
    run would be over before the stick is out.

    What is left to write takes the stick some times longer than ``seconds``, so that the run is not over before, on a fast
    machine or a slow one: a portion of photos is about 600 kB.
    """

    seconds: float
    code: str
    stage: str = ""
    sight: str = "true"
    files: int = 3 * PORTION
    before: int = 0
    then: int = 0
    halt: bool = False

    def slower(self, times: int) -> Moment:
        """The same on a slower stick, with a pull that comes earlier."""
        return replace(self, seconds=self.seconds / 2**times, then=self.then // 2**times)


MOMENTS = {
    "planning": Moment(0.5, "stage-done", "config", before=1_000_000, then=100_000),
    "copying": Moment(4.0, "plan-made", before=300_000, then=150_000),
    "between portions": Moment(
        0.5, "plan-made", sight=f"ls {STICK}/.in-flight | grep -q 'files.[2-9]'", before=300_000, then=150_000
    ),
    # What was copied is flushed before it is read back.
    "flushing": Moment(3.0, "plan-made", sight=f"{_MANAGER} GetState | grep -q 'stage. s .flush'", then=60_000),
    "the last state": Moment(
        0.6,
        "stage-done",
        "profile",
        sight=f"grep -q 'writing.: false' {STICK}/state.json",
        files=1,
        before=15_000,
        then=15_000,
        halt=True,
    ),
}


@pytest_asyncio.fixture(loop_scope="session")
async def hasty(server: Backup) -> AsyncIterator[Backup]:
    """The service with small portions, on a system that writes out early."""
    async with server.altered(("policy/in_flight.py", "BATCH_FILES", PORTION)):
        await server.start_over(grace_seconds=0, mail=False)
        await server.guest.sh("sysctl -q vm.dirty_bytes=2097152")
        yield server


async def test_a_stick_that_is_pulled_again_and_again_loses_nothing(
    hasty: Backup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = marked_image(tmp_path / "blue.img", extra=OWNERS)
    chance = random.Random(SEED)
    stick = _Stick(hasty, image, chance)
    await stick.fill()
    waiting = list(MOMENTS) * ROUNDS
    chance.shuffle(waiting)
    while waiting:
        try:
            await stick.pull_in_mid_run(MOMENTS[waiting[-1]])
            waiting.pop()
        except Exception as error:
            error.add_note(f"seed {SEED}, {waiting[-1]}, {len(waiting)} to go:\n{await hasty.story()}")
            raise
    with capsys.disabled():
        print(f" {len(MOMENTS) * ROUNDS} pulls in mid-run, {stick.late} more when it was over")


class _Stick:
    """A stick that is treated badly. ``_whole``: hashes of what lay on it when it was last whole."""

    def __init__(self, backup: Backup, image: Path, chance: random.Random) -> None:
        self._backup = backup
        self._image = image
        self._chance = chance
        self._others = everything_else(image)
        self._whole: dict[str, str] = {}
        self._round = 0
        self.late = 0

    async def fill(self) -> None:
        """The first backup; the stick stays plugged in."""
        await self._backup.make_photos("upload/old", range(150), seed=self._chance.randrange(1000), kib=60)
        await self._backup.guest.plug("blue", self._image)
        await self._whole_again()

    async def pull_in_mid_run(self, moment: Moment) -> None:
        """A pull at this moment, again and again until it is not too late."""
        for times in range(LATE + 1):
            if await self._one_pull(moment.slower(times)):
                return
        raise AssertionError("each run was over before the pull")

    async def _one_pull(self, moment: Moment) -> bool:
        """New, moved and deleted photos, a run, a pull in it, and the run that makes everything good. Returns whether the
        pull was not too late."""
        self._round += 1
        touched = await self._change_the_library(moment.files)
        pulled = await self._pull_in_a_run(moment)
        untouched = {path: known for path, known in self._whole.items() if path not in touched}
        left = _look(self._image, untouched)
        assert left.originals == untouched, "what an earlier run had written"
        assert left.others == self._others
        await self._backup.guest.plug("blue", self._image)
        ended = await self._whole_again()
        assert not left.writing or "unplugged too early" in ended.texts("last-run-unfinished"), ended.story
        return pulled

    async def _change_the_library(self, files: int) -> set[str]:
        """The paths of photos that were there before and are no longer."""
        old = sorted(path for path in self._whole if path.startswith("upload/"))
        *moved, deleted = self._chance.sample(old, 6)
        goals = f"library/admin/{self._round}"
        moves = "; ".join(f"mv {path} {goals}/{number}.jpg" for number, path in enumerate(moved))
        await self._backup.guest.sh(f"cd {MEDIA}; mkdir -p {goals}; {moves}; rm {deleted}")
        names = [f"{number % 3}/{number}" for number in range(files)]
        seed = self._chance.randrange(1000)
        await self._backup.make_photos(f"upload/new{self._round}", names, seed=seed, kib=60)
        return {deleted, *moved}

    async def _pull_in_a_run(self, moment: Moment) -> bool:
        guest = self._backup.guest
        await self._backup.from_now_on()
        await guest.throttle("blue", moment.before)
        await guest.sh(_BACKUP)
        stage = {"stage": moment.stage} if moment.stage else {}
        await self._backup.event(moment.code, **stage)  # type: ignore[arg-type]  # none of them is the timeout
        await guest.throttle("blue", moment.then)
        pause = self._chance.uniform(0, moment.seconds)
        try:
            await guest.sh(_WAIT.format(sight=moment.sight, pause=pause, then=_HALT if moment.halt else ""))
            await guest.pull("blue")
        finally:
            await guest.sh(f"systemctl kill --signal=SIGCONT {DAEMON}")
        ended = await self._backup.ended()
        assert ended.outcome in {"interrupted", "ok"}, ended.story
        in_time = ended.outcome == "interrupted"
        self.late += not in_time
        return in_time

    async def _whole_again(self) -> Ended:
        """A whole run: everything is on the stick."""
        ended = await self._backup.ended()
        assert ended.outcome == "ok", ended.story
        now = _look(self._image)
        assert now.writing is False
        assert now.originals == await self._backup.originals()
        assert now.others == self._others
        self._whole = dict(now.originals)
        return ended


@dataclass(frozen=True)
class _Seen:
    """Hashes of the originals on a stick and of what is not ours, and whether it says that a run was not over; None where
    the pull took the file that says so."""

    originals: Mapping[str, str]
    others: Mapping[str, str]
    writing: bool | None


def _look(image: Path, paths: Iterable[str] | None = None) -> _Seen:
    """What lies on a stick; of the originals only those at ``paths``, where these are given."""
    with mounted_exfat(image) as root:
        wanted = originals_below(root / OURS) if paths is None else paths
        originals = {path: sha256(root / OURS / path) for path in wanted if (root / OURS / path).is_file()}
        try:
            writing = bool(json.loads((root / OURS / "state.json").read_bytes())["writing"])
        except (OSError, ValueError):
            writing = None
        return _Seen(originals, hashes_of_others(root), writing)
