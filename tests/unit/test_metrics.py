"""The figures for Prometheus: a file that its parser takes, whatever a disk is called, and that is never half written."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.fakes import FakeHistory, Script
from tests.support.telling import HOSTILE_NAMES, NOON, Recorder, SetClock, make_report

from immich_usb_backup.adapters.metrics_file import MetricsFile
from immich_usb_backup.config import Config
from immich_usb_backup.errors import ConfigError, StateDamaged
from immich_usb_backup.events import Event
from immich_usb_backup.model import DiskVerdict, KnownDisk, Outcome, PlugIn, Restorable
from immich_usb_backup.policy.metrics import textfile
from immich_usb_backup.policy.text import printable

PREFIX = "immich_usb_backup_"
VERDICT = DiskVerdict(restorable=Restorable.EXCEPT, assets=10, present=9, proven=4, missing=1)
CONFIG = Config.model_validate({"freshness": {"due_days": 30}})

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(rf'({_NAME})="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """What Prometheus reads: strict where the format is, and each family in one piece behind its HELP and TYPE."""
    assert text.endswith("\n")
    samples: Samples = {}
    families: list[str] = []
    helped = ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped = line.split(" ", 3)[2]
            assert line.split(" ", 3)[3]
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert (name, kind) == (helped, "gauge")
            assert name not in families, "a family comes in one piece"
            families.append(name)
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            name, labels, value = match.groups()
            assert name == families[-1], line
            key = (name.removeprefix(PREFIX), _labels(labels or ""))
            assert key not in samples, "told twice"
            samples[key] = float(value)
    return samples


def _labels(text: str) -> frozenset[tuple[str, str]]:
    found, end = [], 0
    for match in _LABEL.finditer(text):
        assert match.start() == end, text
        end = match.end()
        found.append((match[1], re.sub(r"\\.", lambda escape: _ESCAPES[escape[0]], match[2])))
    assert end == len(text), text
    return frozenset(found)


def _known(name: str = "Blue", **changes: object) -> KnownDisk:
    last = make_report(name=name)
    return replace(KnownDisk(disk=last.disk, last=last, first=NOON - timedelta(days=9), good=NOON), **changes)  # type: ignore[arg-type]


def _value(samples: Samples, name: str, **labels: str) -> float | None:
    wanted = frozenset({"uuid": "1234-ABCD", "disk": "Blue", **labels}.items())
    return samples.get((name, wanted))


def test_everything_about_a_disk_that_is_well() -> None:
    samples = parsed(textfile([_known(verdict=VERDICT)], CONFIG, now=NOON))
    noon = NOON.timestamp()
    assert samples["written_timestamp_seconds", frozenset()] == noon
    assert _value(samples, "last_success_timestamp_seconds") == noon
    assert _value(samples, "last_run_timestamp_seconds") == noon
    assert _value(samples, "last_run_duration_seconds") == 180
    assert _value(samples, "last_run_copied_bytes") == 34_000_000
    assert _value(samples, "last_run_copied_files") == 12
    assert _value(samples, "last_run_safe_to_unplug") == 1
    assert _value(samples, "due_timestamp_seconds") == noon + 30 * 86_400
    assert _value(samples, "restorable") == 0.5
    assert [_value(samples, "last_run_outcome", outcome=outcome) for outcome in Outcome] == [1, 0, 0, 0]
    states = ("named", "present", "proven", "missing", "changed")
    assert [_value(samples, "photos", state=state) for state in states] == [10, 9, 4, 1, 0]


def test_the_page_names_every_gauge_and_its_alerts_ask_for_them() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/how-to/metrics.md").read_text()
    samples = parsed(textfile([_known(verdict=VERDICT)], CONFIG, now=NOON))
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    real = {name for name, _ in samples}
    assert sorted(documented) == sorted(real)
    (photos,) = (row[1] for row in rows if row[0] == "| `photos`")
    states = {value for name, labels in samples if name == "photos" for key, value in labels if key == "state"}
    assert set(re.findall(r"`(\w+)`", photos)) == {*states, "state"}
    asked = set(re.findall(rf"{PREFIX}(\w+)", page.partition("```yaml")[2].partition("```")[0]))
    assert asked
    assert asked <= real


def test_what_is_not_known_is_left_out() -> None:
    never = _known(good=None, last=make_report(outcome=Outcome.FAILED, free_bytes=None))
    config = Config.model_validate({"freshness": {"due_days": 0}})
    names = {name for name, _ in parsed(textfile([never], config, now=NOON))}
    assert not names & {
        "last_success_timestamp_seconds",
        "due_timestamp_seconds",
        "restorable",
        "photos",
        "disk_free_bytes",
    }
    assert parsed(textfile([], config, now=NOON)) == {("written_timestamp_seconds", frozenset()): NOON.timestamp()}


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, 'back\\slash"} 1\nup 0', "\\n", "a{}b"])
def test_a_hostile_name_is_a_label_and_nothing_else(name: str) -> None:
    blue, other = _known(), _known(name)
    disk = replace(other.disk, uuid="2", model=name)
    samples = parsed(textfile([blue, replace(other, disk=disk)], CONFIG, now=NOON))
    plain = parsed(textfile([blue], CONFIG, now=NOON))
    assert len(samples) == 2 * len(plain) - 1
    assert plain.items() <= samples.items()
    assert {dict(labels)["disk"] for _, labels in samples if labels} == {"Blue", printable(name)}
    textfile([replace(other, disk=disk)], CONFIG, now=NOON).encode()


# The file -------------------------------------------------------------------------------------------------


class World:
    """The real file on a fake history."""

    def __init__(self, path: Path) -> None:
        self.history = FakeHistory(Script())
        self.log = Recorder()
        self.config = Config.model_validate({"metrics": {"textfile": str(path)}})
        self.file = MetricsFile(self.history, config=lambda: self.config, clock=SetClock(), log=self.log)

    async def ran(self) -> None:
        report = make_report()
        await self.history.begin(report, PlugIn(boot_id="b", disk_sequence=1, device_number=2))
        await self.history.finish(report)
        self.file.finished(report)
        await self.file.close()


async def test_it_is_written_whole_for_everybody_after_a_run(tmp_path: Path) -> None:
    world = World(tmp_path / "immich.prom")
    (tmp_path / "immich.prom").write_text("old")
    await world.ran()
    assert os.listdir(tmp_path) == ["immich.prom"]
    assert (tmp_path / "immich.prom").stat().st_mode & 0o777 == 0o644
    assert _value(parsed((tmp_path / "immich.prom").read_text()), "last_run_copied_files") == 12
    assert world.log.said == []


async def test_the_exporter_never_sees_a_half_written_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads whatever ends with .prom, names with a dot too."""
    seen: list[str] = []
    replaced = os.replace

    def watched(source: Path, goal: Path) -> None:
        seen.extend(name for name in os.listdir(tmp_path) if name.endswith(".prom"))
        replaced(source, goal)

    monkeypatch.setattr(os, "replace", watched)
    await World(tmp_path / "immich.prom").ran()
    assert seen == []
    assert os.listdir(tmp_path) == ["immich.prom"]


async def test_two_runs_in_a_row_end_with_what_is_true(tmp_path: Path) -> None:
    world = World(tmp_path / "immich.prom")
    reading, go_on, disks = asyncio.Event(), asyncio.Event(), world.history.disks

    async def slowly() -> tuple[KnownDisk, ...]:
        found = await disks()
        reading.set()
        await go_on.wait()
        return found

    world.history.disks = slowly  # type: ignore[method-assign]
    world.file.refresh()
    await reading.wait()
    run = asyncio.ensure_future(world.ran())
    await asyncio.sleep(0)
    go_on.set()
    await run
    assert _value(parsed((tmp_path / "immich.prom").read_text()), "last_run_copied_files") == 12


async def test_a_folder_that_may_not_be_written_to_is_a_line_in_the_journal(tmp_path: Path) -> None:
    world = World(tmp_path / "missing/immich.prom")
    await world.ran()
    assert world.log.events() == [Event.METRICS_FAILED]
    (line,) = world.log.lines()
    assert "cannot be written: No such file or directory" in line
    assert f"ReadWritePaths=-{tmp_path}/missing" in line


async def test_a_history_that_cannot_be_read_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def damaged() -> None:
        raise StateDamaged("The history cannot be used")

    world = World(tmp_path / "immich.prom")
    monkeypatch.setattr(world.history, "disks", damaged)
    await world.ran()
    assert world.log.events() == [Event.METRICS_FAILED]


async def test_nobody_asked_for_it(tmp_path: Path) -> None:
    world = World(tmp_path / "immich.prom")
    world.config = Config()
    await world.ran()
    assert os.listdir(tmp_path) == []


def test_the_exporter_would_not_read_another_file() -> None:
    from immich_usb_backup import config

    with pytest.raises(ConfigError, match=r"metrics\.textfile: must end with \.prom"):
        config.parse(b'[metrics]\ntextfile = "/var/lib/x.txt"', origin="config.toml")
