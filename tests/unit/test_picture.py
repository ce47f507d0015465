"""The picture in the README shows what the program says: each of its lines is one of a run's, and the drawing is of them."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from scripts import picture
from tests.support.fakes import World
from tests.support.running import daemon_on

from immich_usb_backup.adapters.watchers import AllWatchers, TerminalProgress
from immich_usb_backup.config import Config
from immich_usb_backup.policy.assets import Asset

SVG = "{http://www.w3.org/2000/svg}"
KEPT = picture.RUN.read_text().splitlines()


def _shape(line: str) -> str:
    """Without the figures, days, names and devices, which are another run's."""
    line = re.sub(r"^\d\d:\d\d:\d\d |^ +… ", "", line)
    line = re.sub(r"/dev/\w+|on (usb|loop)$", "DEVICE", line)
    line = re.sub(r"'\w+'", "'NAME'", re.sub(r"\d+ [A-Z][a-z]+ \d{4}, (?=\d\d:\d\d)", "", line))
    line = re.sub(r"\d+ [A-Z][a-z]+ \d{4}", "DAY", line)
    line = re.sub(r", [^,]+ in a second.*", "", line)  # so fast a run has no rate
    line = re.sub(r"([\d.,]*\d (B|kB|MB|GB|TB|s|min|h)\b ?)+(?!\w)", "MEASURE ", line)
    return re.sub(r"\bfiles?\b", "files", re.sub(r"\d[\d,.]*\d|\d", "9", line))


def _sha1(path: Path) -> bytes:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).digest()


async def test_every_line_of_the_picture_is_one_that_a_run_says(world: World, config: Config, media: Path) -> None:
    photos = ("upload/u1/aa/bb/1.jpg", "library/admin/2026/2.jpg")
    world.asset_books.assets = [Asset(photo.encode(), _sha1(media / photo)) for photo in photos]
    said: list[str] = []
    shown = TerminalProgress(said.append, world.ports.clock.monotonic)
    world.ports = replace(world.ports, watchers=AllWatchers([world.watchers, shown], world.log))
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.runs(1)
    shapes = {_shape(line) for line in [*world.log.lines(), *said]}
    assert [line for line in KEPT if _shape(line) not in shapes] == []


@pytest.mark.parametrize("theme", picture.THEMES)
def test_the_picture_is_drawn_from_the_kept_run(theme: str) -> None:
    kept = (picture.FOLDER / f"backup-{theme}.svg").read_text()
    assert kept == picture.drawn(KEPT, theme)
    texts = [element.text for element in ElementTree.fromstring(kept).iter(f"{SVG}text")]
    assert " ".join(map(str, texts)).split() == " ".join([picture.PROMPT, *KEPT]).split()


def test_the_run_is_found_in_what_the_demo_prints() -> None:
    demo = "\n── Preparing ──\n  A sample\n\n── The daemon, and the disk is plugged in ──\n  11:13:24 Waiting\n           … preparing\n"
    assert list(picture.run_in(f"{demo}\n── What lies on the disk now ──\n  a\n")) == [
        "11:13:24 Waiting",
        "         … preparing",
    ]
