"""The interface on a real bus, as busctl and other programs see it: objects, properties, signals, and who may do what."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import pytest
from dbus_next import Message, Variant
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters import dbus_service, report_json
from immich_usb_backup.adapters.bus import Bus, Signal
from immich_usb_backup.adapters.dbus_mirror import OLD_SECONDS
from immich_usb_backup.adapters.dbus_service import DaemonOnBus
from immich_usb_backup.adapters.dbus_tree import OBJECT_MANAGER, PROPERTIES
from immich_usb_backup.adapters.polkit import GROUP, Action, Polkit
from immich_usb_backup.config import Desktop
from immich_usb_backup.dbus_names import BUS_NAME, DISK, DISKS, ERROR, MANAGER, OBJECT_PATH, RUN, RUNS, path_of
from immich_usb_backup.errors import BusCallFailed
from immich_usb_backup.model import Outcome, Progress, RunReport, Stage, Trigger
from immich_usb_backup.policy.disk_facts import DiskState
from tests.support import host
from tests.support.asked import BLUE, POLKIT, Service, StandInGuard, StandInPolkit
from tests.support.needs import cannot_run
from tests.support.telling import HOSTILE_NAMES, NOON, hostile_report, make_report

CHECKOUT = Path(__file__).resolve().parents[2]
HANGS_AFTER = 20.0
BLUES_PATH = path_of(DISKS, "1234-ABCD")
RUN_ID = make_report().run_id
RUNS_PATH = path_of(RUNS, RUN_ID)
D_BUS_ERROR = "org.freedesktop.DBus.Error"

pytestmark = pytest.mark.skipif(host.find_program("dbus-daemon") is None, reason="there is no dbus-daemon")
needs_busctl = pytest.mark.skipif(host.find_program("busctl") is None, reason="there is no busctl")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture(scope="module")
def bus() -> Iterator[host.Bus]:
    with host.system_bus(private=True) as bus:
        yield bus


@pytest.fixture(autouse=True)
def on_this_bus(bus: host.Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bus.variable, bus.address)


@pytest.fixture
async def connection() -> AsyncIterator[Bus]:
    """The service's."""
    connection = await Bus.system()
    yield connection
    await connection.close()


@pytest.fixture
async def client() -> AsyncIterator[Bus]:
    client = await Bus.system()
    yield client
    await client.close()


class Face:
    """The daemon's face over a stand-in. ``time`` is in seconds and stands still."""

    def __init__(self, connection: Bus) -> None:
        self.time = 0.0
        self.service = Service()
        self.guard = StandInGuard()
        self.bus = DaemonOnBus(connection, Desktop, lambda: self.time, guard=self.guard, now=lambda: NOON)


@pytest.fixture
async def face(connection: Bus) -> Face:
    face = Face(connection)
    await face.bus.start(face.service)
    return face


async def call(client: Bus, path: str, interface: str, member: str, signature: str = "", *words: Any) -> Any:
    answer = await client.call(BUS_NAME, path, interface, member, signature, words, timeout=HANGS_AFTER)
    return answer[0] if len(answer) == 1 else answer


async def manager(client: Bus, member: str, signature: str = "", *words: Any) -> Any:
    return await call(client, OBJECT_PATH, MANAGER, member, signature, *words)


async def everything(client: Bus) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = await call(client, OBJECT_PATH, OBJECT_MANAGER, "GetManagedObjects")
    return found


async def error_of(work: Awaitable[object]) -> str:
    with pytest.raises(BusCallFailed) as failed:
        await work
    return failed.value.name


async def busctl(*arguments: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        ["busctl", f"--address={os.environ['DBUS_SYSTEM_BUS_ADDRESS']}", "--timeout=10", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=user,
    )


class Heard:
    """Signals of the daemon as somebody else hears them."""

    def __init__(self) -> None:
        self.signals: list[Signal] = []
        self._news = asyncio.Event()

    async def listen(self, client: Bus) -> Heard:
        """From now on."""
        for interface in (PROPERTIES, OBJECT_MANAGER, MANAGER):
            await client.subscribe(self._hear, interface=interface, sender=BUS_NAME)
        return self

    def _hear(self, signal: Signal) -> None:
        self.signals.append(signal)
        self._news.set()

    async def until(self, met: Callable[[Signal], bool]) -> Signal:
        """The first such signal."""
        async with asyncio.timeout(HANGS_AFTER):
            while not (found := [signal for signal in self.signals if met(signal)]):
                self._news.clear()
                await self._news.wait()
        return found[0]


def reading(run_id: str = RUN_ID, stage: Stage = Stage.UPLOAD, done: int = 10**9) -> Progress:
    return Progress(
        run_id=run_id, disk_name="Blue", stage=stage, done=done, total=4 * 10**9, percent=25, current="upload/a.jpg"
    )


# Objects as busctl shows them -----------------------------------------------------------------------------


@needs_busctl
@pytest.mark.usefixtures("face")
async def test_busctl_finds_every_object() -> None:
    tree = await busctl("tree", "--list", BUS_NAME)
    assert {OBJECT_PATH, BLUES_PATH, RUNS_PATH} <= set(tree.stdout.split()), tree.stderr


@needs_busctl
@pytest.mark.usefixtures("face")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            OBJECT_PATH,
            {
                ".GetDisks": "method - aa{sv}",
                ".GetHistory": "method sub aa{sv}",
                ".GetReport": "method s s",
                ".Enroll": "method ss s",
                ".Remind": "method - u",
                ".Cancel": "method s s",
                ".CurrentRun": 'property o "/"',
                ".Running": "property b false",
                ".RunProgress": "signal a{sv} -",
                ".GetManagedObjects": "method - a{oa{sa{sv}}}",
                ".PropertiesChanged": "signal sa{sv}as -",
            },
        ),
        (
            BLUES_PATH,
            {
                ".Backup": "method s s",
                ".Verify": "method s ss",
                ".Approve": "method - u",
                ".Name": 'property s "Blue"',
                ".Size": "property x 64000000000",
                ".State": 'property s "idle"',
                ".Late": "property b false",
                ".Reasons": "property as 0",
                ".LastGood": f"property x {int(NOON.timestamp())}",
                ".Device": 'property s "/dev/sdb1"',
                ".History": 'property s "ofo"',
            },
        ),
        (
            RUNS_PATH,
            {
                ".Retry": "method - s",
                ".Run": f'property s "{RUN_ID}"',
                ".Outcome": 'property s "ok"',
                ".Files": "property x 12",
                ".Percent": "property x -1",
                ".Mode": 'property s "quick"',
                ".Trigger": 'property s "schedule"',
            },
        ),
    ],
)
async def test_each_object_is_introspected_with_its_properties(path: str, expected: dict[str, str]) -> None:
    done = await busctl("introspect", BUS_NAME, path)
    assert done.returncode == 0, done.stderr
    rows = {row[0]: " ".join(row[1:4]) for row in (line.split() for line in done.stdout.splitlines()) if row}
    assert {name: rows.get(name) for name in expected} == expected


@needs_busctl
@pytest.mark.usefixtures("face")
async def test_a_property_is_read() -> None:
    done = await busctl("get-property", BUS_NAME, BLUES_PATH, DISK, "Name", "LastOutcome", "Known")
    assert done.stdout == 's "Blue"\ns "ok"\nb true\n', done.stderr
    done = await busctl("set-property", BUS_NAME, BLUES_PATH, DISK, "Name", "s", "Red")
    assert (done.returncode, "Nothing here can be set" in done.stderr) == (1, True)


@pytest.mark.usefixtures("face")
async def test_everything_is_listed_at_once(client: Bus) -> None:
    objects = await everything(client)
    assert objects.keys() == {OBJECT_PATH, BLUES_PATH, RUNS_PATH}
    assert objects[BLUES_PATH][DISK]["Uuid"] == "1234-ABCD"
    assert objects[RUNS_PATH][RUN]["SafeToUnplug"] is True
    for path, interface in ((OBJECT_PATH, MANAGER), (BLUES_PATH, DISK), (RUNS_PATH, RUN)):
        one = await call(client, path, PROPERTIES, "GetAll", "s", interface)
        assert one == objects[path][interface] == await call(client, path, PROPERTIES, "GetAll", "s", "")


async def test_a_run_that_is_not_listed_still_answers_by_its_path(face: Face, client: Bus) -> None:
    path = path_of(RUNS, "long-ago")
    assert path not in await everything(client)
    assert await call(client, path, PROPERTIES, "Get", "ss", RUN, "Outcome") == "ok"
    described = await call(client, path, "org.freedesktop.DBus.Introspectable", "Introspect")
    assert 'name="Retry"' in described
    assert await call(client, path, RUN, "Retry") == "Blue"
    assert face.service.asked == [("retry", "long-ago")]


@pytest.mark.usefixtures("face")
@pytest.mark.parametrize(
    ("path", "interface", "member", "signature", "words", "error"),
    [
        (path_of(RUNS, "none"), PROPERTIES, "GetAll", "s", [RUN], "UnknownObject"),
        (path_of(RUNS, "none"), "org.freedesktop.DBus.Introspectable", "Introspect", "", [], "UnknownObject"),
        (path_of(DISKS, "none"), PROPERTIES, "Get", "ss", [DISK, "Name"], "UnknownObject"),
        (f"{OBJECT_PATH}/nothing", PROPERTIES, "GetAll", "s", [""], "UnknownInterface"),
        (f"{OBJECT_PATH}/runs/a_zz", RUN, "Retry", "", [], "UnknownInterface"),
        (OBJECT_PATH, MANAGER, "Format", "s", ["Blue"], "UnknownMethod"),
        (OBJECT_PATH, RUN, "Retry", "", [], "UnknownInterface"),
        (BLUES_PATH, PROPERTIES, "Get", "ss", [DISK, "Smell"], "UnknownProperty"),
        (BLUES_PATH, PROPERTIES, "Get", "ss", [RUN, "Name"], "UnknownInterface"),
        (BLUES_PATH, PROPERTIES, "Set", "ssv", [DISK, "Name", Variant("s", "x")], "PropertyReadOnly"),
        (BLUES_PATH, DISK, "Backup", "ss", ["Blue", ""], "InvalidArgs"),
        (BLUES_PATH, OBJECT_MANAGER, "GetManagedObjects", "", [], "UnknownInterface"),
    ],
)
async def test_what_is_not_there_is_said_as_d_bus_says_it(
    client: Bus, path: str, interface: str, member: str, signature: str, words: list[Any], error: str
) -> None:
    assert await error_of(call(client, path, interface, member, signature, *words)) == f"{D_BUS_ERROR}.{error}"


@pytest.mark.usefixtures("face")
async def test_a_call_without_an_interface_finds_its_method(client: Bus) -> None:
    assert await client.call(BUS_NAME, OBJECT_PATH, None, "GetState") == ({"running": False},)  # type: ignore[arg-type]


async def test_names_from_a_disk_are_carried_whatever_they_are(face: Face, client: Bus) -> None:
    reports = [replace(hostile_report(name), run_id=f"run-{n}") for n, name in enumerate(HOSTILE_NAMES)]
    face.service.over = tuple(reports)
    face.service.facts = tuple(replace(BLUE, name=name, uuid=f"{n}{name}") for n, name in enumerate(HOSTILE_NAMES))
    face.service.changed()
    objects = await everything(client)
    assert len(objects) == 1 + 2 * len(HOSTILE_NAMES)
    assert len(await manager(client, "GetDisks")) == len(HOSTILE_NAMES)
    assert [run["Run"] for run in await manager(client, "GetHistory", "sub", "", 3, False)] == [
        "run-0",
        "run-1",
        "run-2",
    ]


# Requests -------------------------------------------------------------------------------------------------


async def test_the_methods_of_an_object_are_about_that_object(face: Face, client: Bus) -> None:
    assert await call(client, BLUES_PATH, DISK, "Backup", "s", "full") == "Bl\\udcffue\\0"
    assert await call(client, BLUES_PATH, DISK, "Verify", "s", "all") == ("1234-ABCD", "1234-ABCD")
    for member in ("Cancel", "Eject", "Forget"):
        assert await call(client, BLUES_PATH, DISK, member) == "Blue"
    assert await call(client, BLUES_PATH, DISK, "Approve") == 70_000
    assert await call(client, RUNS_PATH, RUN, "Retry") == "Blue"
    assert face.service.asked == [
        ("backup", "1234-ABCD", "full", Trigger.ASKED),
        ("verify", "1234-ABCD", "all"),
        *((what, "1234-ABCD") for what in ("cancel", "eject", "forget", "approve")),
        ("retry", RUN_ID),
    ]


async def test_only_the_run_that_goes_on_can_be_cancelled(face: Face, client: Bus) -> None:
    assert await error_of(call(client, RUNS_PATH, RUN, "Cancel")) == f"{ERROR}.NotRunning"
    face.bus.started("now", make_report().disk)
    assert await error_of(call(client, RUNS_PATH, RUN, "Cancel")) == f"{ERROR}.NotRunning"
    assert await call(client, path_of(RUNS, "now"), RUN, "Cancel") == "Blue"


async def test_the_lists_and_the_whole_report(face: Face, client: Bus) -> None:
    bad = replace(make_report("bad"), outcome=Outcome.FAILED)
    face.service.over = (make_report(), bad)
    (disk,) = await manager(client, "GetDisks")
    assert (disk["Name"], disk["State"], disk["HeldDeletions"]) == ("Blue", "idle", 0)
    runs = await manager(client, "GetHistory", "sub", "Blue", 5, False)
    assert [run["Run"] for run in runs] == [RUN_ID, "bad"]
    assert "Body" not in runs[0]
    failed = await manager(client, "GetHistory", "sub", "", 5, True)
    assert [run["Outcome"] for run in failed] == ["failed"]
    assert report_json.load((await manager(client, "GetReport", "s", "bad")).encode()) == bad
    assert await error_of(manager(client, "GetReport", "s", "none")) == f"{ERROR}.NoSuchRun"
    assert await error_of(manager(client, "GetHistory", "sub", "Green", 5, False)) == f"{ERROR}.NoSuchDisk"


async def test_the_run_that_goes_on_is_the_first_of_the_history(face: Face, client: Bus) -> None:
    face.bus.started("now", make_report().disk)
    face.bus.progress(reading("now"))
    for disk in ("", "Blue", "1234-ABCD"):
        run, *others = await manager(client, "GetHistory", "sub", disk, 9, False)
        assert (run["Run"], run["Ended"], run["Outcome"], run["Mode"]) == ("now", 0, "", "verify")
        assert [other["Run"] for other in others] == [RUN_ID]
    assert await manager(client, "GetHistory", "sub", "", 9, True) == []
    assert await manager(client, "GetCurrentFile") == "upload/a.jpg"
    current = await call(client, OBJECT_PATH, PROPERTIES, "Get", "ss", MANAGER, "CurrentRun")
    values = await call(client, current, PROPERTIES, "GetAll", "s", RUN)
    assert (values["Stage"], values["Percent"], values["Trigger"]) == ("upload", 25, "asked")
    face.bus.finished(make_report())
    assert await manager(client, "GetCurrentFile") == ""
    assert await call(client, OBJECT_PATH, PROPERTIES, "Get", "ss", MANAGER, "CurrentRun") == "/"


# What docs/reference/dbus.md shows -------------------------------------------------------------------------


@needs_busctl
@needs_root
async def test_the_examples_in_the_document_show_what_there_is(face: Face) -> None:
    face.service.name = "Blue"
    blocks = re.findall(r"```console\n(.*?)```", (CHECKOUT / "docs/reference/dbus.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    variables = {"name": BUS_NAME, "path": OBJECT_PATH}
    for asked, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks), re.MULTILINE):
        words = shlex.split(Template(asked.removeprefix("sudo ")).substitute(variables))
        assert words[0] == "busctl"
        done = await busctl(*words[1:])
        assert done.stdout + done.stderr == expected, asked


@needs_busctl
@needs_root
async def test_the_lines_for_scripts_print_what_they_are_for(face: Face) -> None:
    if shutil.which("jq") is None:
        cannot_run("jq is not installed")
    face.service.name = "Blue"
    blocks = re.findall(r"```sh\n(.*?)```", (CHECKOUT / "docs/reference/dbus.md").read_text(), re.DOTALL)
    names, lines = (next(block for block in blocks if word in block) for word in ("name=io", "jq"))
    here = 'busctl() { command busctl --address="$DBUS_SYSTEM_BUS_ADDRESS" "$@"; }\nsudo() { "$@"; }\n'
    script = here + names + lines
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-eo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    disks, _, plan = done.stdout.partition("\n")
    assert disks.split("\t")[:3] == ["Blue", "idle", "ok"]
    assert '"code"' in plan


# Changes --------------------------------------------------------------------------------------------------


async def test_every_change_is_told_once_and_nothing_else(face: Face, client: Bus) -> None:
    await everything(client)
    heard = await Heard().listen(client)
    face.service.facts = (replace(BLUE, state=DiskState.RUNNING),)
    face.service.changed()
    told = await heard.until(lambda signal: signal.path == BLUES_PATH)
    assert told.body == (DISK, {"State": "running"}, [])
    face.service.facts = (replace(BLUE, uuid="NEW", name="New"),)
    face.service.over = ()
    face.service.changed()
    added = await heard.until(lambda signal: signal.member == "InterfacesAdded")
    assert added.body[0] == path_of(DISKS, "NEW")
    assert added.body[1][DISK]["Name"] == "New"
    removed = [signal.body for signal in heard.signals if signal.member == "InterfacesRemoved"]
    assert sorted(removed) == sorted([(BLUES_PATH, [DISK]), (RUNS_PATH, [RUN])])
    face.service.changed()
    assert [one["Name"] for one in await manager(client, "GetDisks")] == ["New"]
    assert len(heard.signals) == 4


async def test_what_follows_from_the_time_is_computed_again_when_somebody_asks(face: Face, client: Bus) -> None:
    assert (await manager(client, "GetDisks"))[0]["Late"] is False
    face.service.facts = (replace(BLUE, late=True),)
    assert (await manager(client, "GetDisks"))[0]["Late"] is False
    face.time += OLD_SECONDS
    assert (await manager(client, "GetDisks"))[0]["Late"] is True


async def test_a_history_that_cannot_be_read_is_said_and_heals(face: Face, client: Bus) -> None:
    await everything(client)
    good = face.service.disks

    async def damaged() -> Any:
        raise RuntimeError if face.service.trouble is None else face.service.trouble

    face.service.trouble = BusCallFailed("x", "The history cannot be used")
    face.service.disks = damaged  # type: ignore[method-assign]
    face.service.changed()
    assert await error_of(manager(client, "GetDisks")) == f"{ERROR}.Failed"
    face.service.disks = good  # type: ignore[method-assign]
    assert len(await manager(client, "GetDisks")) == 1


def sends(connection: Bus, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The members of all that is sent from now on."""
    sent: list[str] = []
    send = connection._connection.send

    def counting(message: Any) -> Any:
        sent.append(str(message.member))
        return send(message)

    monkeypatch.setattr(connection._connection, "send", counting)
    return sent


def make_a_run(face: Face, run_id: str, seconds: int = 10, a_second: int = 200) -> RunReport:
    """A run that jumps from stage to stage and back as fast as none ever does."""
    report = replace(make_report(), run_id=run_id)
    face.bus.started(run_id, report.disk)
    stages = (Stage.PLAN, Stage.UPLOAD, Stage.FLUSH, Stage.COMPARE)
    for number in range(seconds * a_second):
        face.time += 1 / a_second
        face.bus.progress(reading(run_id, stages[number % 4], done=number))
    face.bus.finished(report)
    return report


async def test_progress_is_told_twice_a_second_whatever_the_run_does(
    face: Face, connection: Bus, client: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await everything(client)
    sent = sends(connection, monkeypatch)
    make_a_run(face, "fast")
    await manager(client, "GetState")
    assert sent.count("RunStarted") == sent.count("RunFinished") == 1
    per_second = 1 / dbus_service.SIGNAL_SECONDS
    assert sent.count("RunProgress") <= 10 * per_second + 1
    assert sent.count("RunProgress") >= 10 * per_second / 2, "it is told at all"
    assert sent.count("PropertiesChanged") <= 10 * per_second + 5


async def test_a_thousand_listeners_cost_a_run_not_one_message_more(
    face: Face, connection: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [await Bus.system() for _ in range(4)]
    await everything(clients[0])
    sent = sends(connection, monkeypatch)

    async def one_run(run_id: str) -> int:
        before = len(sent)
        face.service.over = (make_a_run(face, run_id, seconds=2),)
        await manager(clients[0], "GetState")
        await everything(clients[0])
        return len(sent) - before

    alone = await one_run("alone")
    for client in clients:
        for number in range(250):
            rule = f"type='signal',sender='{BUS_NAME}',arg0='{number}'" if number else f"sender='{BUS_NAME}'"
            await client._ask_driver("AddMatch", "s", [rule])
    assert await one_run("watched") == alone
    for client in clients:
        await client.close()


async def test_a_plan_is_no_run_that_goes_on(
    face: Face, connection: Bus, client: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await everything(client)
    sent = sends(connection, monkeypatch)
    face.bus.progress(reading("plan", Stage.PLAN))
    assert await manager(client, "GetState") == {"running": False}
    assert "RunProgress" not in sent


async def test_a_run_that_has_just_been_written_down_is_one(face: Face, client: Bus) -> None:
    face.bus.started(RUN_ID, make_report().disk)
    runs = await manager(client, "GetHistory", "sub", "", 9, False)
    assert [(run["Run"], run["Outcome"]) for run in runs] == [(RUN_ID, "ok")]


async def test_what_was_put_off_is_told_when_it_may_be(connection: Bus, client: Bus) -> None:
    loop = asyncio.get_running_loop()
    face = DaemonOnBus(connection, Desktop, loop.time, guard=StandInGuard())
    await face.start(Service())
    heard = await Heard().listen(client)
    face.started("now", make_report().disk)
    face.progress(reading("now", Stage.PLAN))
    face.progress(reading("now", Stage.UPLOAD, done=1))
    face.progress(reading("now", Stage.UPLOAD, done=2))
    last = await heard.until(lambda signal: signal.member == "RunProgress" and signal.body[0]["stage"] == "upload")
    assert last.body[0]["done"] == 2
    face.progress(reading("now", Stage.FLUSH))
    face.finished(replace(make_report(), run_id="now"))
    await heard.until(lambda signal: signal.member == "RunFinished")
    assert [signal.body[0]["stage"] for signal in heard.signals if signal.member == "RunProgress"] == ["plan", "upload"]


@needs_busctl
async def test_busctl_monitors_what_goes_on(face: Face) -> None:
    command = ["busctl", f"--address={os.environ['DBUS_SYSTEM_BUS_ADDRESS']}", "--json=short"]
    match = f"type='signal',interface='{MANAGER}'"
    process = await asyncio.create_subprocess_exec(
        *command, "--match", match, "monitor", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    heard = asyncio.ensure_future(process.stdout.readline())
    async with asyncio.timeout(HANGS_AFTER):
        while not heard.done():  # newer ones do not say when they listen
            face.bus.finished(make_report())
            await asyncio.wait({heard}, timeout=0.1)
    line = json.loads(heard.result())
    assert (line["member"], line["payload"]["data"][0]["outcome"]["data"]) == ("RunFinished", "ok")
    process.terminate()
    await process.wait()


# Who may --------------------------------------------------------------------------------------------------

NEEDS = {
    (OBJECT_PATH, MANAGER, "Plan", "ss"): Action.INSPECT,
    (OBJECT_PATH, MANAGER, "GetReport", "s"): Action.INSPECT,
    (OBJECT_PATH, MANAGER, "GetCurrentFile", ""): Action.INSPECT,
    (OBJECT_PATH, MANAGER, "Backup", "ss"): Action.OPERATE,
    (OBJECT_PATH, MANAGER, "Verify", "ss"): Action.OPERATE,
    (OBJECT_PATH, MANAGER, "Cancel", "s"): Action.OPERATE,
    (OBJECT_PATH, MANAGER, "Eject", "s"): Action.OPERATE,
    (OBJECT_PATH, MANAGER, "Retry", "s"): Action.OPERATE,
    (OBJECT_PATH, MANAGER, "Remind", ""): Action.OPERATE,
    (OBJECT_PATH, MANAGER, "Approve", "s"): Action.DECIDE,
    (OBJECT_PATH, MANAGER, "Adopt", "s"): Action.DECIDE,
    (OBJECT_PATH, MANAGER, "Forget", "s"): Action.DECIDE,
    (OBJECT_PATH, MANAGER, "Enroll", "ss"): Action.DECIDE,
    (BLUES_PATH, DISK, "Backup", "s"): Action.OPERATE,
    (BLUES_PATH, DISK, "Verify", "s"): Action.OPERATE,
    (BLUES_PATH, DISK, "Cancel", ""): Action.OPERATE,
    (BLUES_PATH, DISK, "Eject", ""): Action.OPERATE,
    (BLUES_PATH, DISK, "Approve", ""): Action.DECIDE,
    (BLUES_PATH, DISK, "Forget", ""): Action.DECIDE,
    (RUNS_PATH, RUN, "Cancel", ""): Action.OPERATE,
    (RUNS_PATH, RUN, "Retry", ""): Action.OPERATE,
}
FOR_EVERYBODY = {"GetState", "GetDisks", "GetHistory"}


async def test_nothing_but_looking_is_done_without_leave(face: Face, client: Bus) -> None:
    face.guard.allows = False
    for (path, interface, member, signature), action in NEEDS.items():
        words = ["Blue"] * len(signature)
        face.guard.asked.clear()
        assert await error_of(call(client, path, interface, member, signature, *words)) == f"{ERROR}.NotAllowed", member
        assert face.guard.asked == [(action, member in {"Backup", "Remind"})], member
    assert face.service.asked == []
    described = await call(client, OBJECT_PATH, "org.freedesktop.DBus.Introspectable", "Introspect")
    methods = described[described.index(MANAGER) : described.index("</interface>")].split('method name="')[1:]
    known = {member for path, _, member, _ in NEEDS if path == OBJECT_PATH}
    assert {method.partition('"')[0] for method in methods} == known | FOR_EVERYBODY


async def test_the_daemons_own_user_is_its_schedule_and_everybody_else_a_person(
    face: Face, client: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 987)
    for user in (987, 0, 1000):
        face.guard.user = user
        await manager(client, "Backup", "ss", "Blue", "")
    assert [one[3] for one in face.service.asked] == [Trigger.SCHEDULE, Trigger.ASKED, Trigger.ASKED]


@pytest.fixture
async def polkit() -> AsyncIterator[StandInPolkit]:
    bus = await Bus.system()
    polkit = StandInPolkit(bus)
    await polkit.start()
    yield polkit
    polkit.answers.set()
    await bus.close()


@pytest.fixture
async def guarded(connection: Bus) -> Service:
    """The face with the real guard, which does not wait for long."""
    service = Service()
    guard = Polkit(connection, seconds=0.3, person_seconds=0.3)
    await DaemonOnBus(connection, Desktop, lambda: 0.0, guard=guard).start(service)
    return service


async def as_nobody(member: str, signature: str, *words: str, interactive: bool = False) -> tuple[int, str]:
    flag = f"--allow-interactive-authorization={'yes' if interactive else 'no'}"
    done = await busctl(flag, "call", BUS_NAME, OBJECT_PATH, MANAGER, member, signature, *words, user="nobody")
    return done.returncode, done.stdout + done.stderr


@needs_busctl
@needs_root
@pytest.mark.parametrize("interactive", [False, True])
async def test_polkit_is_asked_about_the_caller(guarded: Service, polkit: StandInPolkit, interactive: bool) -> None:
    polkit.allows = {Action.OPERATE}
    assert await as_nobody("Eject", "s", "Blue", interactive=interactive) == (0, 's "Blue"\n')
    ((subject, action, flags),) = polkit.asked
    assert subject["name"].startswith(":")
    assert (action, flags) == ("io.github.immich_usb_backup1.operate", int(interactive))
    code, said = await as_nobody("Approve", "s", "Blue", interactive=interactive)
    assert (code, f"for members of the group {GROUP}" in said) == (1, True)
    assert guarded.asked == [("eject", "Blue")]


@needs_busctl
@needs_root
@pytest.mark.parametrize("interactive", [False, True])
async def test_a_polkit_that_hangs_is_a_clear_refusal(
    guarded: Service,
    polkit: StandInPolkit,
    interactive: bool,
) -> None:
    polkit.answers.clear()
    code, said = await as_nobody("Eject", "s", "Blue", interactive=interactive)
    assert (code, "polkit did not answer" in said) == (1, True)
    assert len(polkit.cancelled) == 1, "the question goes from the screen"
    assert guarded.asked == []


@needs_busctl
@needs_root
async def test_without_polkit_only_root_may(guarded: Service) -> None:
    code, said = await as_nobody("Eject", "s", "Blue")
    assert (code, "polkit could not be asked" in said, "sudo" in said) == (1, True, True)
    assert (await busctl("call", BUS_NAME, OBJECT_PATH, MANAGER, "Eject", "s", "Blue")).stdout == 's "Blue"\n'
    assert guarded.asked == [("eject", "Blue")]


async def test_root_is_not_asked_about(guarded: Service, polkit: StandInPolkit, client: Bus) -> None:
    if os.geteuid() != 0:
        pytest.skip("this is not root")
    assert await manager(client, "Eject", "s", "Blue") == "Blue"
    assert (polkit.asked, guarded.asked) == ([], [("eject", "Blue")])


@needs_busctl
@needs_root
@pytest.mark.parametrize(("member", "signature", "words"), [("Backup", "ss", ("Blue", "")), ("Remind", "", ())])
async def test_the_daemons_own_user_begins_what_is_scheduled(
    guarded: Service, monkeypatch: pytest.MonkeyPatch, member: str, signature: str, words: tuple[str, ...]
) -> None:
    nobody = int(subprocess.run(["id", "-u", "nobody"], capture_output=True, check=True).stdout)
    monkeypatch.setattr(os, "geteuid", lambda: nobody)
    assert (await as_nobody(member, signature, *words))[0] == 0
    assert (await as_nobody("Eject", "s", "Blue"))[0] == 1
    assert len(guarded.asked) == 1


@needs_root
async def test_who_leaves_is_no_longer_asked_about(guarded: Service, polkit: StandInPolkit) -> None:
    polkit.answers.clear()
    command = ["busctl", f"--address={os.environ['DBUS_SYSTEM_BUS_ADDRESS']}", "call", BUS_NAME, OBJECT_PATH, MANAGER]
    process = await asyncio.create_subprocess_exec(*command, "Eject", "s", "Blue", user="nobody")
    async with asyncio.timeout(HANGS_AFTER):
        while not polkit.asked:
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        while not polkit.cancelled:
            await asyncio.sleep(0.01)
    polkit.answers.set()
    assert guarded.asked == []


# Nonsense -------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    TEXT.map(lambda value: ("s", value)),
    st.integers(0, 2**32 - 1).map(lambda value: ("u", value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: ("x", value)),
    st.booleans().map(lambda value: ("b", value)),
    st.floats(allow_nan=False).map(lambda value: ("d", value)),
    st.binary(max_size=8).map(lambda value: ("ay", value)),
    st.lists(TEXT, max_size=3).map(lambda value: ("as", value)),
    st.dictionaries(TEXT, TEXT.map(lambda value: Variant("s", value)), max_size=2).map(lambda value: ("a{sv}", value)),
    TEXT.map(lambda value: ("v", Variant("v", Variant("s", value)))),
    st.just(("(sa{sv})", ["x", {}])),
)
WORDS = st.one_of(st.lists(VALUES, max_size=3), st.lists(TEXT.map(lambda value: ("s", value)), max_size=2))
CALLED = st.one_of(
    st.sampled_from(list(NEEDS)).map(lambda need: need[:3]),
    st.tuples(st.sampled_from([OBJECT_PATH]), st.just(MANAGER), st.sampled_from(sorted(FOR_EVERYBODY))),
    st.tuples(
        st.sampled_from([OBJECT_PATH, BLUES_PATH, RUNS_PATH, "/", "/io", f"{OBJECT_PATH}/disks", f"{BLUES_PATH}/x"]),
        st.sampled_from([PROPERTIES, OBJECT_MANAGER, "org.freedesktop.DBus.Introspectable", "a.b"]),
        st.sampled_from(["Get", "GetAll", "Set", "Introspect", "GetManagedObjects", "X"]),
    ),
)


async def test_nonsense_is_an_error_of_ours_or_of_d_bus_and_never_a_trace(face: Face, client: Bus) -> None:
    errors: set[str] = set()
    messages: list[str] = []
    bugs: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: bugs.append(context))
    calls: list[tuple[tuple[str, str, str], list[tuple[str, Any]]]] = []

    @settings(max_examples=300, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(called=CALLED, values=WORDS)
    def collect(called: tuple[str, str, str], values: list[tuple[str, Any]]) -> None:
        calls.append((called, values))

    collect()
    for (path, interface, member), values in calls:
        signature = "".join(kind for kind, _ in values)
        try:
            await call(client, path, interface, member, signature, *[value for _, value in values])
        except BusCallFailed as error:
            errors.add(error.name)
            messages.append(error.message)
    assert len(await manager(client, "GetDisks")) == 1
    assert all(name.startswith((f"{D_BUS_ERROR}.", f"{ERROR}.")) for name in errors)
    assert {f"{D_BUS_ERROR}.InvalidArgs", f"{ERROR}.NoSuchDisk"} <= errors
    assert not [text for text in messages if "Traceback" in text or "made a mistake" in text]
    assert not bugs
    assert face.guard.asked


async def test_files_that_somebody_sends_along_are_closed(face: Face, client: Bus) -> None:
    """They would fill the daemon's table, and are never used."""
    ours, theirs = os.pipe()
    message = Message(
        destination=BUS_NAME,
        path=OBJECT_PATH,
        interface=MANAGER,
        member="GetState",
        signature="h",
        body=[0],
        unix_fds=[theirs],
    )
    reply = await client._connection.call(message)
    assert reply is not None
    assert reply.error_name == f"{D_BUS_ERROR}.InvalidArgs"
    os.close(theirs)
    os.set_blocking(ours, False)
    assert os.read(ours, 1) == b"", "nobody holds the other end"
    os.close(ours)
    assert face.service.asked == []


async def test_many_who_ask_for_the_history_cost_no_more_than_one_at_a_time(face: Face, client: Bus) -> None:
    at_once = most = 0
    read = face.service.runs

    async def slowly(disk: str, number: int, *, failed: bool) -> tuple[RunReport, ...]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return await read(disk, number, failed=failed)

    await everything(client)
    face.service.runs = slowly  # type: ignore[method-assign]
    await asyncio.gather(*[manager(client, "GetHistory", "sub", "", 1000, False) for _ in range(20)])
    assert most == 1


async def test_the_errors_of_polkit_are_no_bugs(guarded: Service, client: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has polkit's name and answers something else is no leave."""
    stranger = await Bus.system()
    await stranger.request_name(POLKIT)
    monkeypatch.setattr(Bus, "user_of", lambda *_: asyncio.sleep(0, result=1000))
    assert await error_of(manager(client, "Eject", "s", "Blue")) == f"{ERROR}.NotAllowed"
    await stranger.close()
    assert guarded.asked == []


def test_paths_and_names_lead_to_each_other() -> None:
    @given(name=st.text(min_size=1, max_size=20))
    def there_and_back(name: str) -> None:
        try:
            name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return  # half a surrogate pair is in no name from a disk
        path = path_of(DISKS, name)
        assert path.removeprefix(f"{OBJECT_PATH}/disks/").replace("_", "").isalnum()
        assert dbus_names.name_of(DISKS, path) == name
        assert dbus_names.name_of(RUNS, path) is None

    there_and_back()
