"""Buttons on the desktop: what is pressed reaches the daemon, and what comes of it stands in the same note."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from immich_usb_backup.adapters import daemon_calls
from immich_usb_backup.dbus_names import ERROR
from immich_usb_backup.errors import BusCallFailed
from immich_usb_backup.policy import note_words
from immich_usb_backup.policy.note_words import PENDING, Action
from tests.integration.buses import RecordingDesktop, StandIn, until
from tests.integration.desktop.agents import FAILED, FINISHED, PROGRESS, STARTED, agent_runs
from tests.support.telling import Recorder

UUID = STARTED["uuid"]
HELD = FINISHED | {
    "outcome": "partial",
    "headline": "'Blue' is backed up, but not everything: safe to unplug",
    "body": "Nothing was removed from the backup: 12 files are held.",
    "findings": ["deletions-held"],
}
MOUNTED = FAILED | {
    "safe_to_unplug": False,
    "headline": "Backup to 'Blue' failed: it may still be mounted, do not just unplug it",
    "body": "Another program holds the disk.",
}


def _first_line(screen: RecordingDesktop) -> str:
    return screen.only.body.split("\n")[0] if screen.visible else ""


@pytest.mark.usefixtures("agent")
async def test_a_backup_is_cancelled_and_the_note_says_so(daemon: StandIn, screen: RecordingDesktop) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    daemon.answer = lambda member: answer
    daemon.emit("RunStarted", **STARTED)
    daemon.emit("RunProgress", **PROGRESS, percent=50, line="half")
    await until(lambda: bool(screen.visible) and screen.only.body == "half")
    assert (screen.only.buttons, screen.only.hints["resident"]) == (["Cancel"], True)
    screen.press("Cancel")
    await until(lambda: _first_line(screen) == PENDING[Action.CANCEL])
    assert screen.only.buttons == [], "nothing to press twice"
    assert (daemon.asked, daemon.interactive) == ([("Cancel", UUID)], [True]), "polkit may ask for a password"
    daemon.emit("RunProgress", **PROGRESS, percent=60, line="more")
    await until(lambda: screen.only.body.endswith("\nmore"))
    answer.set_result("Blue")
    await until(lambda: _first_line(screen).startswith("The backup to 'Blue' is being stopped"))
    assert screen.only.buttons == []
    daemon.emit("RunFinished", **FAILED | {"outcome": "interrupted", "headline": "interrupted"})
    await until(lambda: screen.summaries() == ["interrupted"])
    assert "being stopped" not in screen.only.body


@pytest.mark.parametrize(
    ("name", "message", "words"),
    [
        (
            f"{ERROR}.NotAllowed",
            "Ask <b>somebody</b>\nin the group.",
            "Not done. Ask &lt;b&gt;somebody&lt;/b&gt;\\nin the group.",
        ),
        ("org.freedesktop.DBus.Error.AccessDenied", "Rejected send message, 1 matched rules", "You may not do this: "),
        ("org.freedesktop.DBus.Error.UnknownMethod", "no such method", "The backup service is of another version."),
    ],
)
@pytest.mark.usefixtures("agent")
async def test_a_refusal_is_said_in_words_and_can_be_tried_again(
    name: str, message: str, words: str, daemon: StandIn, screen: RecordingDesktop
) -> None:
    daemon.answer = lambda member: BusCallFailed(name, message)
    daemon.emit("RunFinished", **HELD)
    await until(lambda: bool(screen.visible))
    assert screen.only.buttons == ["Approve deletions"]
    screen.press("Approve deletions")
    await until(lambda: _first_line(screen).startswith(words))
    assert screen.only.buttons == ["Approve deletions"]
    assert str(HELD["body"]) in screen.only.body
    daemon.answer = lambda member: 12
    screen.press("Approve deletions")
    await until(lambda: _first_line(screen).startswith("12 deletions approved"))
    assert screen.only.buttons == []


@pytest.mark.usefixtures("agent")
async def test_held_deletions_are_approved(daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.emit("RunFinished", **HELD)
    await until(lambda: bool(screen.visible))
    screen.press("Approve deletions")
    await until(lambda: _first_line(screen).startswith("12 deletions approved"))
    assert daemon.asked == [("Approve", UUID)]
    daemon.emit("RunStarted", **STARTED | {"run": "r2", "headline": "again"})
    await until(lambda: screen.summaries() == ["again"])


@pytest.mark.usefixtures("agent")
async def test_a_disk_that_is_still_mounted_is_ejected(daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.emit("RunFinished", **MOUNTED)
    await until(lambda: bool(screen.visible))
    assert screen.only.buttons == ["Eject"]
    screen.press("Eject")
    await until(lambda: screen.summaries() == ["Backup to 'Blue' failed: safe to unplug"])
    assert (screen.only.buttons, daemon.asked) == ([], [("Eject", UUID)])
    assert "Another program holds the disk." in screen.only.body


@pytest.mark.usefixtures("agent")
async def test_reading_back_ends_early_where_the_disk_is_wanted(daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.emit("RunStarted", **STARTED)
    daemon.emit("RunProgress", **PROGRESS | {"stage": "prove"}, percent=10, line="reading")
    await until(lambda: bool(screen.visible) and screen.only.buttons == ["Eject"])
    screen.press("Eject")
    await until(lambda: _first_line(screen).startswith("'Blue' is unmounted"))
    assert daemon.asked == [("Eject", UUID)]
    daemon.emit("RunProgress", **PROGRESS | {"stage": "unmount"}, percent=-1, line="unmounting")
    await until(lambda: screen.only.body.endswith("unmounting"))
    assert screen.only.buttons == []


@pytest.mark.parametrize(
    "values",
    [
        FINISHED,
        FAILED,
        MOUNTED | {"findings": ["disk-gone"]},
        FAILED | {"findings": "deletions-held"},
    ],
)
@pytest.mark.usefixtures("agent")
async def test_where_nothing_can_be_done_there_is_nothing_to_press(
    values: dict[str, Any], daemon: StandIn, screen: RecordingDesktop
) -> None:
    daemon.emit("RunFinished", **values)
    await until(lambda: bool(screen.visible))
    assert screen.only.buttons == []
    assert screen.only.hints["resident"] is False, "a click takes it away"
    for action in Action:
        screen.invoke(next(iter(screen.visible)), action.value)
    daemon.emit("RunStarted", **STARTED | {"run": "r2", "headline": "after"})
    await until(lambda: "after" in screen.summaries())
    assert daemon.asked == []


@pytest.mark.usefixtures("agent")
async def test_an_unplugged_disk_is_not_ejected(daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.emit("RunFinished", **MOUNTED)
    await until(lambda: bool(screen.visible) and screen.only.buttons == ["Eject"])
    daemon.emit("DiskRemoved", uuid=UUID, disk="Blue")
    await until(lambda: screen.only.buttons == [])


async def test_a_desktop_without_buttons_gets_none(log: Recorder, daemon: StandIn) -> None:
    screen = RecordingDesktop(capabilities=("body",))
    await screen.start()
    async with agent_runs(log):
        daemon.emit("RunFinished", **HELD)
        await until(lambda: bool(screen.visible))
        assert screen.only.actions == []
    await screen.stop()


@pytest.mark.usefixtures("agent")
async def test_a_desktop_that_closes_what_is_pressed_shows_the_answer_all_the_same(
    daemon: StandIn, screen: RecordingDesktop
) -> None:
    daemon.answer = lambda member: BusCallFailed(f"{ERROR}.NotAllowed", "No")
    for values, button in ((("RunStarted", STARTED), "Cancel"), (("RunFinished", HELD), "Approve deletions")):
        daemon.emit(values[0], **values[1])
        await until(lambda: bool(screen.visible) and bool(screen.only.buttons))
        note_id = next(iter(screen.visible))
        screen.press(button)
        screen.dismiss(note_id)
        await until(lambda: _first_line(screen) == "Not done. No.")
        screen.dismiss(next(iter(screen.visible)))


@pytest.mark.usefixtures("agent")
async def test_the_service_goes_away_while_it_is_asked(daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.answer = lambda member: asyncio.get_running_loop().create_future()
    daemon.emit("RunFinished", **HELD)
    await until(lambda: bool(screen.visible))
    screen.press("Approve deletions")
    await until(lambda: bool(daemon.asked))
    await daemon.stop()
    await until(lambda: _first_line(screen).startswith("The backup service does not run."))
    assert screen.only.buttons == ["Approve deletions"]


async def test_an_answer_that_does_not_come_is_said(
    monkeypatch: pytest.MonkeyPatch, log: Recorder, daemon: StandIn, screen: RecordingDesktop
) -> None:
    monkeypatch.setattr(daemon_calls, "_PASSWORD_SECONDS", 0.05)
    daemon.answer = lambda member: asyncio.get_running_loop().create_future()
    async with agent_runs(log):
        daemon.emit("RunFinished", **HELD)
        await until(lambda: bool(screen.visible))
        screen.press("Approve deletions")
        await until(lambda: _first_line(screen) == note_words.NO_ANSWER)


async def test_an_agent_that_ends_waits_for_nobody(log: Recorder, daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.answer = lambda member: asyncio.get_running_loop().create_future()
    async with agent_runs(log):
        daemon.emit("RunStarted", **STARTED)
        await until(lambda: bool(screen.visible))
        screen.press("Cancel")
        await until(lambda: bool(daemon.asked))
    assert not screen.visible


# Notices --------------------------------------------------------------------------------------------------

NOTICE = {
    "notice": "reminder-1",
    "kind": "reminder",
    "headline": "'Blue' is 41 days old",
    "body": "It was last seen on 10 October.",
    "todo": "Plug it in.",
    "uuid": UUID,
    "disk": "Blue",
}


@pytest.mark.parametrize(
    ("kind", "urgency", "icon", "category"),
    [
        ("reminder", 1, "drive-removable-media", "device"),
        ("stranger", 2, "dialog-warning", "device.error"),
        ("waiting", 1, "battery", "device"),
        ("something new", 1, "dialog-information", "device"),
    ],
)
@pytest.mark.usefixtures("agent")
async def test_a_notice_is_shown_and_has_nothing_to_press(
    kind: str, urgency: int, icon: str, category: str, daemon: StandIn, screen: RecordingDesktop
) -> None:
    daemon.emit("Notice", **NOTICE | {"kind": kind, "todo": "Plug <it> in."})
    await until(lambda: bool(screen.visible))
    assert (screen.only.summary, screen.only.buttons) == (NOTICE["headline"], [])
    assert screen.only.body == "It was last seen on 10 October.\nPlug &lt;it&gt; in."
    assert (screen.only.hints["urgency"], screen.only.icon, screen.only.hints["category"]) == (urgency, icon, category)


@pytest.mark.usefixtures("agent")
async def test_a_newer_reminder_takes_the_place_of_the_older(daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.emit("Notice", **NOTICE)
    daemon.emit("Notice", **NOTICE | {"uuid": "", "disk": "", "headline": "No disk is fresh"})
    daemon.emit("Notice", **NOTICE | {"headline": "'Blue' is 48 days old"})
    await until(lambda: screen.summaries() == ["'Blue' is 48 days old", "No disk is fresh"])
    daemon.emit("DiskRemoved", uuid=UUID, disk="Blue")
    daemon.emit("RunStarted", **STARTED)
    await until(lambda: screen.summaries() == [STARTED["headline"], "No disk is fresh"])
    daemon.emit("RunFinished", **FINISHED)
    await until(lambda: screen.summaries() == [FINISHED["headline"]])


@pytest.mark.parametrize("kind", ["stranger", "waiting"])
@pytest.mark.usefixtures("agent")
async def test_what_is_about_a_disk_that_is_here_goes_with_it(
    kind: str, daemon: StandIn, screen: RecordingDesktop
) -> None:
    daemon.emit("Notice", **NOTICE | {"kind": kind})
    await until(lambda: bool(screen.visible))
    daemon.emit("DiskRemoved", uuid=UUID, disk="Blue")
    await until(lambda: not screen.visible)
