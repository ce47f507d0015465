"""A server on battery: which backups wait, which do not, and what is said. On fakes, and on trees like the kernel's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import World
from tests.support.running import daemon_on, quiet

from immich_usb_backup.adapters.power import _read
from immich_usb_backup.config import Config
from immich_usb_backup.errors import DeliveryFailed
from immich_usb_backup.events import Event
from immich_usb_backup.model import DeviceAction, NoticeKind, Outcome, Trigger
from immich_usb_backup.policy.power import on_battery


def on(config: Config, choice: str) -> Config:
    return config.model_copy(update={"disks": config.disks.model_copy(update={"on_battery": choice})})


# The daemon -------------------------------------------------------------------------------------------------


async def test_a_backup_waits_for_mains_and_says_so(world: World, config: Config) -> None:
    world.power.battery = True
    stick = world.stick(label="Blue")
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.WAITS_FOR_MAINS in world.log.events())
        assert stick.mounted_by == ""
        assert "disks.mount rw" not in world.script.steps
        (notice,) = world.outbox.notices.values()
        assert notice.headline == "'Blue' waits for mains power: the server runs on battery"
        assert (notice.kind, notice.disk_name) == (NoticeKind.WAITING, "Blue")
        assert "eject it" in notice.todo[0], "a desktop may still have it mounted"
        assert world.watchers.told == ["notice waiting"]
        world.power.say(battery=False)
        await running.runs(1)
    assert world.outcomes == [Outcome.OK]
    assert Event.MAINS_BACK in world.log.events()
    assert world.report.trigger is Trigger.PLUG_IN


async def test_news_that_is_no_good_news_begins_nothing(world: World, config: Config) -> None:
    world.power.battery = True
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.until(lambda: "power.changed" in world.script.steps)
        looks = world.script.steps.count("power.on_battery")
        world.power.say(battery=True)
        await running.until(lambda: world.script.steps.count("power.on_battery") > looks)
        assert world.outcomes == []


async def test_a_disk_that_is_pulled_meanwhile_is_no_longer_waited_for(world: World, config: Config) -> None:
    world.power.battery = True
    stick = world.stick(label="Blue")
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.WAITS_FOR_MAINS in world.log.events())
        world.devices.pull(stick)
        await running.until(lambda: Event.LEFT_BEFORE_MAINS in world.log.events())
        world.power.say(battery=False)
        await quiet()
        assert world.script.steps.count("disks.find") == 1
        world.devices.plug_again(stick)
        await running.runs(1)
    assert world.watchers.told[:2] == ["notice waiting", "notice waiting"]
    assert world.outcomes == [Outcome.OK]


async def test_a_disk_that_waits_says_so_once_whatever_udev_repeats(world: World, config: Config) -> None:
    world.power.battery = True
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.WAITS_FOR_MAINS in world.log.events())
        world.devices.say(stick, DeviceAction.CHANGE)
        await quiet()
    assert world.log.events().count(Event.WAITS_FOR_MAINS) == 1


async def test_another_persons_plan_and_the_eject_do_not_wait_with_it(world: World, config: Config) -> None:
    world.power.battery = True
    stick = world.stick(label="Blue")
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.WAITS_FOR_MAINS in world.log.events())
        plan = await running.daemon.asked.plan("Blue", "")
        assert plan.disk.name == "Blue"
        await quiet()
        (facts,) = await running.daemon.asked.disks()
        assert facts.state == "waiting"
        assert await running.daemon.asked.eject("Blue") == "Blue"


async def test_who_asks_for_a_backup_gets_it(world: World, config: Config) -> None:
    world.power.battery = True
    stick = world.stick(label="Blue")
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.WAITS_FOR_MAINS in world.log.events())
        await running.daemon.asked.backup("Blue", "")
        await running.runs(1)
        world.power.say(battery=False)
        await quiet()
    assert world.outcomes == [Outcome.OK], "and no second one when mains power is back"


async def test_what_waits_can_be_cancelled(world: World, config: Config) -> None:
    world.power.battery = True
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick(label="Blue"))
        await running.until(lambda: Event.WAITS_FOR_MAINS in world.log.events())
        assert await running.daemon.asked.cancel("Blue") == "Blue"
        world.power.say(battery=False)
        await quiet()
    assert Event.CANCELLED_BEFORE_MAINS in world.log.events()
    assert world.outcomes == []


async def test_a_backup_that_is_skipped_is_told_and_not_made_up_for(world: World, config: Config) -> None:
    world.power.battery = True
    async with daemon_on(world, on(config, "skip")) as running:
        world.devices.plug(world.stick(label="Blue"))
        await running.until(lambda: Event.SKIPPED_ON_BATTERY in world.log.events())
        world.power.say(battery=False)
        await quiet()
    (notice,) = world.outbox.notices.values()
    assert notice.headline == "'Blue' was not backed up to: the server runs on battery"
    assert world.outcomes == []


async def test_where_it_is_to_run_nobody_looks(world: World, config: Config) -> None:
    world.power.battery = True
    async with daemon_on(world, on(config, "run")) as running:
        world.devices.plug(world.stick())
        await running.runs(1)
    assert "power.on_battery" not in world.script.steps


async def test_a_run_goes_on_when_mains_fails(world: World, config: Config) -> None:
    world.script.hold("copier.copy upload")
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.reached("copier.copy upload")
        world.power.say(battery=True)
        world.script.go_on("copier.copy upload")
        await running.runs(1)
    assert world.outcomes == [Outcome.OK]


async def test_a_stranger_on_battery_is_looked_at_and_not_told_of(world: World, config: Config) -> None:
    world.power.battery = True
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick(marked=False))
        await running.until(lambda: Event.DISK_UNMARKED in world.log.events())
    assert Event.WAITS_FOR_MAINS not in world.log.events()


async def test_a_full_outbox_keeps_nobody_from_waiting(world: World, config: Config) -> None:
    world.power.battery = True
    world.script.fail("outbox.put_notice", DeliveryFailed("full"))
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.until(lambda: Event.WAITS_FOR_MAINS in world.log.events())
        world.power.say(battery=False)
        await running.runs(1)
    assert world.outcomes == [Outcome.OK]


# The kernel's power supplies --------------------------------------------------------------------------------

MAINS_ON = {"type": "Mains", "online": "1"}
MAINS_OFF = {"type": "Mains", "online": "0"}
DISCHARGING = {"type": "Battery", "status": "Discharging", "scope": "System"}
CHARGING = {"type": "Battery", "status": "Charging"}
MOUSE = {"type": "Battery", "status": "Discharging", "scope": "Device"}


@pytest.mark.parametrize(
    ("supplies", "battery"),
    [
        ({}, False),
        ({"AC": MAINS_ON, "BAT0": CHARGING}, False),
        ({"AC": MAINS_OFF, "BAT0": DISCHARGING}, True),
        ({"BAT0": DISCHARGING}, True),
        ({"BAT0": DISCHARGING, "ucsi-1": {"type": "USB", "online": "1"}}, False),
        ({"AC": MAINS_ON, "mouse": MOUSE}, False),
        ({"mouse": MOUSE}, False),
        ({"AC": MAINS_OFF}, False),
        ({"AC": MAINS_ON, "BAT0": DISCHARGING}, False),
        ({"ups": {"type": "UPS", "status": "Discharging"}}, True),
        ({"odd": {}}, False),
        ({"odd": {"type": "\xff\n\nBattery"}}, False),
    ],
)
def test_what_the_kernel_says(tmp_path: Path, supplies: Mapping[str, Mapping[str, Any]], battery: bool) -> None:
    for name, values in supplies.items():
        (tmp_path / name).mkdir()
        for key, value in values.items():
            (tmp_path / name / key).write_text(f"{value}\n")
    assert on_battery(_read(tmp_path)) is battery


def test_without_the_folder_it_is_mains(tmp_path: Path) -> None:
    assert on_battery(_read(tmp_path / "nothing")) is False
    os.mkfifo(tmp_path / "a file")
    assert on_battery(_read(tmp_path)) is False
