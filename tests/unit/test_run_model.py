"""Whatever happens to the server's files, to the disk and to the runs: the next whole run makes the disk equal."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from tests.support.fakes import Stick, World
from tests.support.running import daemon_on

from immich_usb_backup.adapters import manifest_file
from immich_usb_backup.config import Config
from immich_usb_backup.model import IN_FLIGHT, Outcome
from immich_usb_backup.policy import in_flight
from immich_usb_backup.policy.manifest import MANIFEST, Known

ROUNDS = 7
NAMES = (
    "a.jpg",
    "A.JPG",
    "12:30.jpg",
    "12_30.jpg",
    "trail.",
    "b.mov",
    "CON",
    "caf\udce9.jpg",
    "e\u0301.jpg",
    "\u00e9.jpg",
)
FOLDERS = ("upload/u1", "library/admin", "library/Admin", "library/Rome: 1", "profile/u1", "upload/u1/aa/bb")


class Model:
    """A media location and a stick, both of which have a hard life, by one seed."""

    def __init__(self, world: World, media: Path, seed: int) -> None:
        self.world = world
        self.media = media
        self.random = Random(seed)
        self.stick = world.stick()
        self.times = itertools.count(1_500_000_000)

    def files(self) -> list[Path]:
        found = [path for folder in ("upload", "library", "profile") for path in (self.media / folder).rglob("*")]
        return sorted(path for path in found if path.is_file() and path.name != ".immich")

    def victims(self) -> list[Path]:
        """Without the first of each folder: one that is empty is held, and that is another test's matter."""
        return [path for path in self.files() if path.name not in {"1.jpg", "2.jpg", "me.jpg"}]

    # The server ---------------------------------------------------------------------------------------------

    def change_server(self) -> None:
        for _ in range(self.random.randint(0, 6)):
            self.random.choice((self.add, self.add, self.delete, self.rename, self.rewrite, self.touch))()

    def add(self) -> None:
        path = self.media / self.random.choice(FOLDERS) / self.random.choice(NAMES)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.write_bytes(self.random.randbytes(self.random.randint(0, 40)))
            os.utime(path, (0, next(self.times)))

    def delete(self) -> None:
        if files := self.victims():
            self.random.choice(files).unlink()

    def rename(self) -> None:
        if files := self.victims():
            goal = self.media / self.random.choice(FOLDERS) / self.random.choice(NAMES)
            goal.parent.mkdir(parents=True, exist_ok=True)
            self.random.choice(files).rename(goal)

    def rewrite(self) -> None:
        if files := self.victims():
            path = self.random.choice(files)
            path.write_bytes(self.random.randbytes(self.random.randint(0, 40)))
            os.utime(path, (0, next(self.times)))

    def touch(self) -> None:
        if files := self.victims():
            os.utime(self.random.choice(files), (0, next(self.times)))

    # The disk -----------------------------------------------------------------------------------------------

    def change_disk(self) -> None:
        """Other hands: what they do is seen by the free room. Who removes the list of what is in flight takes the doubt with
        it."""
        stray = self.stick.root / f"stray-{self.random.randrange(1 << 30)}"
        found = (path for path in self.stick.backups.rglob("*") if path.is_file())
        files = sorted(path for path in found if IN_FLIGHT not in path.parts)
        kind = self.random.randrange(8)
        if kind == 0 and files:
            self.random.choice(files).unlink()
            stray.write_bytes(b"x" * 1_000_000)
        elif kind == 1 and files:
            self.random.choice(files).write_bytes(b"edited")
            stray.write_bytes(b"x" * 1_000_000)
        elif kind == 2:
            (self.stick.backups / "upload").mkdir(exist_ok=True)
            (self.stick.backups / "upload/stray.jpg").write_bytes(b"s" * 1_000_000)
        elif kind == 3:
            shutil.rmtree(self.world.state / "manifests", ignore_errors=True)

    def tear(self) -> None:
        """What was being written when the plug was pulled may have its name, its size and its time, and no content."""
        folder = self.stick.backups / IN_FLIGHT
        for name in in_flight.lists(path.name for path in folder.iterdir()) if folder.is_dir() else ():
            for stored in in_flight.decode((folder / name).read_bytes()) or ():
                path = self.stick.backups / os.fsdecode(stored)
                if path.is_file() and self.random.random() < 0.5:
                    facts = path.stat()
                    path.write_bytes(bytes(facts.st_size))
                    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    # Runs ---------------------------------------------------------------------------------------------------

    def misfortune(self) -> Callable[[], None]:
        """Something that happens at some step of the run."""

        def pull() -> None:
            self.world.devices.pull(self.stick, tell=self.random.random() < 0.5)

        def hiccup() -> None:
            raise OSError(5, "Input/output error")

        return self.random.choice((pull, pull, hiccup))

    def equal(self) -> None:
        """The disk, read by its own manifest, holds the server's files."""
        with (self.stick.backups / MANIFEST).open("rb") as stream:
            _, lines = manifest_file.read(stream)
            found: dict[str, bytes] = {}
            server = stored = b""
            for line in lines:
                if isinstance(line, Known):
                    path = self.stick.backups / os.fsdecode(stored + b"/" + line.stored)
                    found[os.fsdecode(server + b"/" + line.name)] = path.read_bytes()
                else:
                    server, stored = line.path, line.stored_path
        expected = {str(path.relative_to(self.media)): path.read_bytes() for path in self.files()}
        assert {name: content for name, content in found.items() if not name.endswith(".immich")} == expected
        lying = [path for root in ("upload", "library", "profile") for path in (self.stick.backups / root).rglob("*")]
        assert len([path for path in lying if path.is_file()]) == len(found)


def _at_step(world: World, number: int, happens: Callable[[], None]) -> None:
    """At the ``number``-th thing that is done to the disk from now on."""
    steps = itertools.count(1)
    original = type(world.script)._fail

    def counting(step: str) -> None:
        if step.startswith(("target.", "copier.")) and next(steps) == number:
            happens()
        original(world.script, step)

    world.script._fail = counting  # type: ignore[method-assign]


async def _plug(world: World, running: object, stick: Stick) -> Outcome:
    runs = len(world.watchers.reports)
    if stick.seen.plug_in in world.devices.plugged:
        world.devices.pull(stick)
    world.devices.plug_again(stick)
    await running.runs(runs + 1)  # type: ignore[attr-defined]
    return world.watchers.reports[-1].outcome


@pytest.mark.parametrize("seed", range(40))
async def test_the_next_whole_run_makes_the_disk_equal(world: World, config: Config, media: Path, seed: int) -> None:
    model = Model(world, media, seed)
    async with daemon_on(world, config) as running:
        for _ in range(ROUNDS):
            model.change_server()
            if model.random.random() < 0.7:
                _at_step(world, model.random.randint(1, 80), model.misfortune())
            outcome = await _plug(world, running, model.stick)
            _at_step(world, 0, lambda: None)
            if outcome is Outcome.INTERRUPTED:
                model.tear()
            if model.random.random() < 0.4:
                model.change_disk()
            if model.random.random() < 0.5:
                assert await _plug(world, running, model.stick) in {Outcome.OK, Outcome.PARTIAL}, world.log.lines()
                model.equal()
        assert await _plug(world, running, model.stick) in {Outcome.OK, Outcome.PARTIAL}, world.log.lines()
        model.equal()
        assert sum(stage.files for stage in world.watchers.reports[-1].stages) == 0 or (
            await _plug(world, running, model.stick) is Outcome.OK
            and sum(stage.files for stage in world.watchers.reports[-1].stages) == 0
        )
