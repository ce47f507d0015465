"""A person's requests over a real bus: the methods as busctl and our own commands call them, and who may."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from immich_usb_backup.__main__ import main
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.dbus_service import DaemonOnBus
from immich_usb_backup.adapters.polkit import GROUP
from immich_usb_backup.cli import following
from immich_usb_backup.config import Desktop
from immich_usb_backup.dbus_names import (
    ADOPT,
    APPROVE,
    BACKUP,
    BUS_NAME,
    EJECT,
    ERROR,
    GET_STATE,
    MANAGER,
    OBJECT_PATH,
    PLAN,
    VERIFY,
)
from immich_usb_backup.errors import BackupError, BusCallFailed, BusLost, Interrupted
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import Outcome, Progress, RunReport, Stage
from immich_usb_backup.requests import Refusal, Refused
from tests.support import host, samples
from tests.support.asked import Service
from tests.support.daemon import daemon_process
from tests.support.serving import ServedMethod, serve
from tests.support.telling import make_report

CHECKOUT = Path(__file__).resolve().parents[2]
POLICY = CHECKOUT / "systemd/io.github.immich_usb_backup1.conf"
PLACE = (BUS_NAME, OBJECT_PATH, MANAGER)
HANGS_AFTER = 20.0
OUTCOMES = ("run-ok", "run-partial", "run-failed", "run-interrupted")
CALLS = {PLAN: "ss", BACKUP: "ss", VERIFY: "ss", EJECT: "s", APPROVE: "s", ADOPT: "s"}

pytestmark = pytest.mark.skipif(host.find_program("dbus-daemon") is None, reason="there is no dbus-daemon")
needs_busctl = pytest.mark.skipif(host.find_program("busctl") is None, reason="there is no busctl")


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
async def service(connection: Bus) -> Service:
    service = Service()
    await DaemonOnBus(connection, Desktop, lambda: 0.0).start(service)
    return service


@pytest.fixture
async def client() -> AsyncIterator[Bus]:
    client = await Bus.system()
    yield client
    await client.close()


async def busctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        ["busctl", f"--address={os.environ['DBUS_SYSTEM_BUS_ADDRESS']}", "--timeout=10", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def call(client: Bus, member: str, *words: str, timeout: float = HANGS_AFTER) -> object:
    (answer, *_) = await client.call(*PLACE, member, "s" * len(words), words, timeout=timeout)
    return answer


async def error_of(work: Awaitable[object]) -> BusCallFailed:
    with pytest.raises(BusCallFailed) as failed:
        await work
    return failed.value


@needs_busctl
@pytest.mark.usefixtures("service")
async def test_everything_is_introspected_with_its_arguments() -> None:
    done = await busctl("introspect", *PLACE[:2])
    assert done.returncode == 0, done.stderr
    rows = {row[0]: row[1:4] for row in (line.split() for line in done.stdout.splitlines()) if row}
    assert rows[f".{PLAN}"] == ["method", "ss", "s"]
    assert rows[f".{BACKUP}"] == ["method", "ss", "s"]
    assert rows[f".{VERIFY}"] == ["method", "ss", "ss"]
    assert rows[f".{EJECT}"] == ["method", "s", "s"]
    assert rows[f".{APPROVE}"] == ["method", "s", "u"]
    assert rows[f".{ADOPT}"] == ["method", "s", "s"]
    assert rows[f".{GET_STATE}"] == ["method", "-", "a{sv}"]
    described = await busctl("call", *PLACE[:2], "org.freedesktop.DBus.Introspectable", "Introspect")
    assert all(f'name=\\"{name}\\"' in described.stdout for name in ("disk", "mode", "plan", "deletions"))


@needs_busctl
@pytest.mark.usefixtures("service")
async def test_the_answers_have_the_types_that_are_described() -> None:
    planned = await busctl("--json=short", "call", *PLACE, PLAN, "ss", "Blue", "verify")
    (document,) = json.loads(planned.stdout)["data"]
    plan = json.loads(document)
    assert (plan["version"], plan["mode"], plan["categories"][0]["count"]) == (1, "verify", 10_000)
    assert (await busctl("call", *PLACE, BACKUP, "ss", "Blue", "")).stdout == 's "Bl\\\\udcffue\\\\0"\n'
    assert (await busctl("call", *PLACE, APPROVE, "s", "Blue")).stdout == "u 70000\n"
    assert (await busctl("call", *PLACE, ADOPT, "s", "Blue")).stdout == 's "Blue"\n'


@needs_busctl
@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("member", CALLS)
@pytest.mark.parametrize("arguments", [(), ("sv", "Blue", "s", ""), ("i", "1"), ("sss", "a", "b", "c")])
async def test_wrong_arguments_are_refused_at_once(member: str, arguments: tuple[str, ...]) -> None:
    done = await busctl("call", *PLACE, member, *arguments)
    assert done.returncode == 1
    assert f"takes '{CALLS[member]}'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("member", CALLS)
async def test_a_disk_that_is_not_here_is_an_error_of_ours(client: Bus, member: str) -> None:
    words = ["x\n\x1b[2J", ""][: len(CALLS[member])]
    error = await error_of(call(client, member, *words))
    assert error.name == f"{ERROR}.NoSuchDisk"
    assert error.message.startswith("No disk 'x\\n\\u001b[2J' is plugged in.")


@pytest.mark.parametrize("why", Refusal)
async def test_each_refusal_has_its_name(service: Service, client: Bus, why: Refusal) -> None:
    service.trouble = Refused(why, "Not now", hint="Ask again.")
    error = await error_of(call(client, APPROVE, "Blue"))
    assert (error.name, error.message) == (f"{ERROR}.{why}", "Not now. Ask again.")


async def test_an_unknown_mode_is_an_error_of_ours(service: Service, client: Bus) -> None:
    for member in (PLAN, BACKUP):
        assert (await error_of(call(client, member, "Blue", "fast"))).name == f"{ERROR}.BadMode"


async def test_what_goes_wrong_is_a_plain_message(service: Service, client: Bus) -> None:
    service.trouble = BackupError("Bl\udcffue\0 is damaged", hint="Check it.")
    error = await error_of(call(client, PLAN, "Blue", ""))
    assert (error.name, error.message) == (f"{ERROR}.Failed", "Bl\\xffue\\u0000 is damaged. Check it.")


async def test_an_error_with_text_that_d_bus_cannot_carry_is_answered(client: Bus) -> None:
    async def fail() -> tuple[()]:
        raise BusCallFailed("org.example.Error", "Bl\udcffue\0")

    server = await Bus.system()
    serve(server, "/org/example", "org.example.X", {"Fail": ServedMethod("", "", fail)})
    await server.request_name("org.example.X")
    error = await error_of(client.call("org.example.X", "/org/example", "org.example.X", "Fail"))
    assert error.message == "Bl\\udcffue\\0"
    await server.close()


async def test_a_bug_is_answered_and_its_trace_is_not_lost(service: Service, client: Bus) -> None:
    traces: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: traces.append(context.get("exception")))
    service.trouble = ZeroDivisionError("a bug")
    error = await error_of(call(client, APPROVE, "Blue"))
    assert error.message == "The service made a mistake"
    service.trouble = None
    assert await call(client, APPROVE, "Blue") == 70_000
    assert [type(trace) for trace in traces] == [ZeroDivisionError]


async def test_a_plan_that_takes_long_holds_up_nothing_else(service: Service, client: Bus) -> None:
    service.plan_may_end.clear()
    plan = asyncio.ensure_future(call(client, PLAN, "Blue", "", timeout=3600))
    async with asyncio.timeout(HANGS_AFTER):
        await service.planning.wait()
        assert await call(client, GET_STATE) == {"running": False}
        assert await call(client, APPROVE, "Blue") == 70_000
        assert not plan.done()
        service.plan_may_end.set()
        assert "categories" in json.loads(str(await plan))


async def test_a_plan_ends_when_its_caller_leaves_the_bus_and_no_sooner(service: Service, client: Bus) -> None:
    service.plan_may_end.clear()
    gone, stays = await Bus.system(), asyncio.ensure_future(call(client, PLAN, "Blue", ""))
    async with asyncio.timeout(HANGS_AFTER):
        await service.planning.wait()
        service.planning.clear()
        left = asyncio.ensure_future(call(gone, PLAN, "Blue", ""))
        await service.planning.wait()
        await gone.close()
        with pytest.raises(BusLost):
            await left
        await service.given_up.wait()
        assert not stays.done()
        service.plan_may_end.set()
        assert "categories" in json.loads(str(await stays))


async def test_ctrl_c_on_the_command_ends_the_plan(service: Service) -> None:
    service.plan_may_end.clear()
    command = (sys.executable, "-m", "immich_usb_backup", "plan", "Blue")
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(HANGS_AFTER):
        await service.planning.wait()
        process.send_signal(signal.SIGINT)
        await service.given_up.wait()
        _, complained = await process.communicate()
    assert b"Traceback" not in complained
    assert process.returncode == ExitCode.PROBLEM


async def test_a_service_that_ends_still_answers_who_waits(connection: Bus, service: Service, client: Bus) -> None:
    service.plan_may_end.clear()
    plan = asyncio.ensure_future(call(client, PLAN, "Blue", ""))
    async with asyncio.timeout(HANGS_AFTER):
        await service.planning.wait()
        service.trouble = Interrupted("The plan was interrupted: the backup service was stopped", hint="")
        service.plan_may_end.set()
        await connection.close()
        assert "the backup service was stopped" in (await error_of(plan)).message


@pytest.mark.usefixtures("service")
async def test_an_unknown_verification_is_an_error_of_ours(client: Bus) -> None:
    assert (await error_of(call(client, VERIFY, "Blue", "some"))).name == f"{ERROR}.BadChoice"


# Our own commands -----------------------------------------------------------------------------------------


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Awaitable[tuple[int, str, str]]]:
    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.usefixtures("service")
async def test_the_commands_ask_and_tell(command: Callable[..., Awaitable[tuple[int, str, str]]]) -> None:
    code, said, _ = await command("plan", "Blue", "--mode", "full")
    assert code == ExitCode.OK
    assert said.startswith("Plan for 'Blue', mode full:\nnew: 10,000 files, 34.5 MB\n")
    assert said.endswith("10,000 files (34.5 MB) would be copied; nothing was changed.\n")
    assert (await command("backup", "Blue"))[1].startswith("The backup to 'Bl\\udcffue\\0' begins")
    assert (await command("approve", "Blue"))[1].startswith("70,000 deletions approved.")
    assert (await command("adopt", "Blue"))[0] == ExitCode.OK


async def test_verify_shows_how_far_it_is_and_ends_with_the_outcome(
    connection: Bus, command: Callable[..., Awaitable[tuple[int, str, str]]]
) -> None:
    service, face = Service(), DaemonOnBus(connection, Desktop, itertools.count().__next__)
    await face.start(service)
    for outcome, code in ((Outcome.OK, ExitCode.OK), (Outcome.PARTIAL, ExitCode.PROBLEM)):
        report = make_report(outcome=outcome)
        verifying = asyncio.ensure_future(command("verify", "Blue", "--all"))
        async with asyncio.timeout(HANGS_AFTER):
            while not service.verified:
                await asyncio.sleep(0.01)
        assert service.verified.pop() == "all"
        other = replace(report, run_id="another", disk=replace(report.disk, uuid="0000-0000", name="Green"))
        for one in (other, report):
            face.started(one.run_id, one.disk)
            face.progress(_reading(one))
            face.finished(one)
        ended, said, _ = await verifying
        assert ended == code
        assert (
            "reading photos back from the disk, 1.0 GB of 4.0 GB, 25 %, 50.0 MB in a second, about 1 min 0 s left"
            in said
        )
        assert "Green" not in said
        assert "'Blue' is backed up" in said


def _reading(report: RunReport) -> Progress:
    return Progress(
        run_id=report.run_id,
        disk_name=report.disk.name,
        stage=Stage.PROVE,
        done=10**9,
        total=4 * 10**9,
        percent=25,
        rate=5e7,
        seconds_left=60.0,
    )


async def test_verify_does_not_wait_for_ever_for_a_disk_that_is_none_of_ours(
    service: Service,
    command: Callable[..., Awaitable[tuple[int, str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(following, "QUIET_SECONDS", 0.03)
    code, _, complained = await command("verify", "Blue")
    assert (code, service.verified) == (ExitCode.PROBLEM, ["due"])
    assert "it has no marker" in complained


async def test_verify_does_not_wait_for_a_service_that_has_ended(
    connection: Bus, command: Callable[..., Awaitable[tuple[int, str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(following, "AWAY_SECONDS", 0.03)
    service = Service()
    await DaemonOnBus(connection, Desktop, lambda: 0.0).start(service)
    verifying = asyncio.ensure_future(command("verify", "Blue"))
    async with asyncio.timeout(HANGS_AFTER):
        while not service.verified:
            await asyncio.sleep(0.01)
        await connection.close()
        code, _, complained = await verifying
    assert code == ExitCode.UNAVAILABLE
    assert "ended before the backup was over" in complained


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("name", ["plan", "backup", "verify", "eject", "approve", "adopt"])
async def test_a_disk_that_is_not_here_ends_a_command_with_75(
    command: Callable[..., Awaitable[tuple[int, str, str]]], name: str
) -> None:
    code, said, complained = await command(name, "Green")
    assert (code, said) == (ExitCode.NOT_HERE, "")
    assert "No disk 'Green' is plugged in" in complained


@pytest.mark.parametrize("name", ["plan", "backup", "verify", "eject", "approve", "adopt"])
async def test_without_the_service_a_command_says_where_to_look(
    command: Callable[..., Awaitable[tuple[int, str, str]]], name: str
) -> None:
    code, _, complained = await command(name, "Blue")
    assert code == ExitCode.UNAVAILABLE
    assert "systemctl status immich-usb-backup" in complained


async def test_a_service_of_another_version_is_called_so(
    connection: Bus, command: Callable[..., Awaitable[tuple[int, str, str]]]
) -> None:
    await connection.request_name(BUS_NAME)
    code, _, complained = await command("adopt", "Blue")
    assert code == ExitCode.UNAVAILABLE
    assert "systemctl restart immich-usb-backup" in complained


# Who may --------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A bus with our policy behind a permissive one, as it is where a distribution's own files come first."""
    including = host.BUS_CONFIG.replace("</busconfig>", f"  <include>{POLICY}</include>\n</busconfig>")
    monkeypatch.setattr(host, "BUS_CONFIG", including)
    with host.system_bus(private=True) as bus:
        monkeypatch.setenv(bus.variable, bus.address)
        yield


def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command as a user without rights."""
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False, user="nobody")


@needs_busctl
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.usefixtures("guarded")
async def test_without_polkit_everybody_may_look_and_only_root_may_ask() -> None:
    connection = await Bus.system()
    await DaemonOnBus(connection, Desktop, lambda: 0.0).start(Service())
    address = f"--address={os.environ['DBUS_SYSTEM_BUS_ADDRESS']}"
    look = await asyncio.to_thread(as_nobody, "busctl", address, "call", *PLACE, GET_STATE)
    assert (look.returncode, look.stdout) == (0, 'a{sv} 1 "running" b false\n'), look.stderr
    for member, signature in CALLS.items():
        words = ["Blue", ""][: len(signature)]
        refused = await asyncio.to_thread(as_nobody, "busctl", address, "call", *PLACE, member, signature, *words)
        assert (refused.returncode, refused.stdout) == (1, ""), member
        assert f"for members of the group {GROUP}" in refused.stderr
        assert "Run it with sudo" in refused.stderr
        allowed = await busctl("call", *PLACE, member, signature, *words)
        assert allowed.returncode == 0, allowed.stderr
    await connection.close()


# A real disk ----------------------------------------------------------------------------------------------


@pytest.mark.host
@pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable()))
async def test_a_person_asks_for_all_four_with_a_disk_that_is_plugged_in(tmp_path: Path) -> None:
    media = samples.make_media_location(tmp_path / "immich", photos=3)
    config = tmp_path / "config.toml"
    disks = '[disks]\ntransports = ["loop"]\nautomounter_grace_seconds = 0\nreserve_megabytes = 0\n'
    disks += "[deletions]\nhold_percent = 0\nhold_files = 0\n"
    config.write_text(f'media_location = "{media.path}"\n{disks}')
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(host.in_thread(host.system_bus()))
        await stack.enter_async_context(host.in_thread(host.udev()))
        await stack.enter_async_context(host.in_thread(host.udisks(bus)))
        disk = await stack.enter_async_context(host.in_thread(host.exfat_disk(128, "Blue", populate=host.make_marker)))

        async def ours(*arguments: str) -> tuple[int, str]:
            environment = {**os.environ, **bus.env, "PYTHONPATH": str(CHECKOUT / "daemon")}
            command = [sys.executable, "-m", "immich_usb_backup", *arguments]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=120, env=environment, check=False
            )
            return done.returncode, done.stdout + done.stderr

        running = daemon_process(config, tmp_path / "state", environment=bus.env)
        daemon = await stack.enter_async_context(running)
        assert (await daemon.event(*OUTCOMES))["outcome"] != "failed", daemon.story()
        (media.path / "upload/new.jpg").write_bytes(b"a new one")
        code, said = await ours("plan", "Blue", "--all")
        assert "new: 1 file, 9 B\n    upload/new.jpg\n" in said, (code, said, daemon.story())
        assert said.endswith("1 file (9 B) would be copied; nothing was changed.\n")
        assert not disk.mount_points()
        assert (await ours("backup", str(disk.device), "--mode", "verify"))[0] == ExitCode.OK
        assert (await daemon.event(*OUTCOMES))["files"] == 1, daemon.story()
        assert (await ours("approve", "Blue"))[0] == ExitCode.PROBLEM, "nothing is held"
        (media.path / "upload/new.jpg").unlink()
        assert (await ours("backup", "Blue"))[0] == ExitCode.OK
        assert (await daemon.event(*OUTCOMES))["outcome"] == "partial", daemon.story()
        code, said = await ours("plan", "Blue")
        assert (code, "would be set aside as deleted: 1 file" in said) == (ExitCode.PROBLEM, True), said
        code, said = await ours("approve", "Blue")
        assert (code, said.splitlines()[0]) == (ExitCode.OK, "1 deletion approved.")
        assert (await daemon.event(*OUTCOMES))["outcome"] == "ok", daemon.story()
        assert (await ours("adopt", "Blue"))[0] == ExitCode.OK
        assert (await daemon.event(*OUTCOMES))["outcome"] != "failed", daemon.story()
        await asyncio.to_thread(disk.detach)
        await daemon.event("disk-removed")
        assert (await ours("plan", "Blue"))[0] == ExitCode.NOT_HERE
        assert (await ours("approve", "Blue"))[0] == ExitCode.PROBLEM, "known from its runs, and nothing is held"
        assert (await ours("forget", "Blue"))[0] == ExitCode.OK
        assert (await ours("approve", "Blue"))[0] == ExitCode.NOT_HERE, "nothing is known of it any more"
        assert not list((tmp_path / "state/manifests").iterdir())
