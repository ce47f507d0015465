"""Making a fresh dump: a real PostgreSQL, a server that answers like Immich, and programs that stand for docker's."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.__main__ import main
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.fresh_dumps import UNIT, SystemdDumpMaker
from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.config import Config, Database
from immich_usb_backup.dump_making import immich_api
from immich_usb_backup.dump_making.immich_api import ImmichApi
from immich_usb_backup.dump_making.making import make
from immich_usb_backup.errors import BusLost, DeadlineMissed, FreshDumpFailed
from immich_usb_backup.policy.dumps import newest_first, parse_dump_name
from tests.integration.fake_systemd import NAME, Systemd
from tests.support import host, immich_schema, postgres, samples
from tests.support.immich_api import KEY, FakeImmich, serving

NOW = datetime(2026, 11, 21, 9, 58, 7).astimezone()
TEXT = samples.dump_text([])
NEW = immich_schema.ERAS[-1]


@pytest.fixture
def server(postgres_server: postgres.Server) -> postgres.Server:
    return postgres_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "dumps"
    folder.mkdir()
    return folder


def _settings(**values: object) -> Database:
    return Config.model_validate({"database": values}).database


def _make(folder: Path, *, now: datetime = NOW, env: dict[str, str] | None = None, **values: Any) -> str:
    return make(_settings(**values), folder, now=now, environment=os.environ | (env or {}))


def _fails(folder: Path, **values: Any) -> str:
    """Why there is no dump; nothing is left of it."""
    before = sorted(os.listdir(folder))
    with pytest.raises(FreshDumpFailed) as failed:
        _make(folder, **values)
    assert sorted(os.listdir(folder)) == before
    return failed.value.message


def _printing(tmp_path: Path, content: bytes, *, then: str = "") -> tuple[str, ...]:
    """A program that prints this, and does something."""
    (tmp_path / "content").write_bytes(content)
    return ("sh", "-c", f'cat "$0"; {then}', str(tmp_path / "content"))


# pg_dump --------------------------------------------------------------------------------------------------


async def test_a_fresh_dump_of_a_real_database_is_one_that_immich_takes(server: postgres.Server, folder: Path) -> None:
    server.database("immich", sql=immich_schema.sql(NEW, immich_schema.photos(NEW)))
    name = _make(folder, mode="pg_dump", url=server.url("immich"))
    assert name == f"immich-db-backup-20261121T095807-v{NEW.version}-pg{server.cluster.version}.sql.gz"
    assert os.listdir(folder) == [name]
    assert await ServerFiles().dump_problem(folder / name) is None
    text = gzip.decompress((folder / name).read_bytes()).decode()
    assert "DROP TABLE IF EXISTS public.asset" in text
    asked, needed = "'search_path', '', false", "'search_path', 'public, pg_catalog', true"  # as Immich restores it
    server.database("again", sql=f"BEGIN;{text.replace(asked, needed)}COMMIT;")
    assert server.content("again") == server.content("immich")


def test_a_role_that_can_only_read_is_enough(server: postgres.Server, folder: Path) -> None:
    server.database("immich", sql=immich_schema.sql(NEW, immich_schema.photos(NEW)))
    server.psql('CREATE ROLE "reader-1" LOGIN; GRANT pg_read_all_data TO "reader-1"', database="immich")
    name = _make(folder, mode="pg_dump", url=server.url("immich", user="reader-1"))
    text = gzip.decompress((folder / name).read_bytes()).decode()
    assert all(photo.sha1 in text for photo in immich_schema.photos(NEW))


def test_another_database_is_not_taken_for_immichs(server: postgres.Server, folder: Path) -> None:
    server.database("shop", sql="CREATE TABLE goods (id int);")
    assert "does not hold Immich's table of assets" in _fails(folder, mode="pg_dump", url=server.url("shop"))


@pytest.mark.parametrize(
    ("database", "host_folder", "words"),
    [("nothing", "{}", 'database "nothing" does not exist'), ("immich", "/nonexistent", "No such file or directory")],
)
def test_a_database_that_does_not_answer_is_told_in_its_own_words(
    server: postgres.Server, folder: Path, database: str, host_folder: str, words: str
) -> None:
    place = host_folder.format(server.cluster.socket)
    said = _fails(folder, mode="pg_dump", url=f"postgresql://postgres@/{database}?host={place}")
    assert said.startswith("pg_dump: error: connection to server")
    assert words in said
    assert said.endswith("(exit code 1)")


def test_two_fresh_dumps_stay_and_nothing_else_is_touched(server: postgres.Server, folder: Path) -> None:
    server.database("immich", sql=immich_schema.sql(NEW))
    (folder / "mine.txt").write_text("mine")
    (folder / "immich-db-backup-20261121T000000.sql.gz.tmp").write_bytes(b"of a helper that was ended")
    names = [_make(folder, mode="pg_dump", url=server.url("immich"), now=NOW + timedelta(days=day)) for day in range(4)]
    assert sorted(os.listdir(folder)) == [*names[-2:], "mine.txt"]


# A command ------------------------------------------------------------------------------------------------


def test_a_containers_dump(
    server: postgres.Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in postgres.put_docker(tmp_path, {}).items():
        monkeypatch.setenv(name, value)
    server.database("immich", sql=immich_schema.sql(NEW))
    command = ["docker", "exec", "-i", "immich_postgres", "pg_dump", "--clean", "--if-exists", server.url("immich")]
    assert parse_dump_name(_make(folder, mode="command", command=command))
    command[3] = "wrong"
    said = _fails(folder, mode="command", command=command)
    assert said == "docker: Error: No such container: wrong (exit code 1)"


@pytest.mark.parametrize("content", [TEXT.encode(), gzip.compress(TEXT.encode())])
def test_what_a_command_prints_is_the_dump_packed_or_not(folder: Path, tmp_path: Path, content: bytes) -> None:
    name = _make(folder, mode="command", command=_printing(tmp_path, content))
    assert name == "immich-db-backup-20261121T095807-v2.5.2-pg14.19.sql.gz"
    assert gzip.decompress((folder / name).read_bytes()).decode() == TEXT


def test_a_dump_of_the_cluster_is_named_so_that_immich_restores_it_as_one(folder: Path, tmp_path: Path) -> None:
    text = samples.dump_text([], cluster=True).encode()
    assert "-v0.0.0-pg14.19." in _make(folder, mode="command", command=_printing(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "then", "words"),
    [
        (b"", "echo 'no such container' >&2; exit 3", "sh: no such container (exit code 3)"),
        (TEXT.encode(), "exit 1", "sh: it said nothing (exit code 1)"),
        (TEXT.encode(), "echo; printf '\\033[2J\\n' >&2; exit 1", "\x1b[2J"),
        (b"", "", "it is empty"),
        (b"<html>502</html>", "", "does not begin like a dump"),
        (TEXT.encode()[:900], "", "What was made is no good dump"),
        (gzip.compress(TEXT.encode())[:-9], "", "it is damaged or was cut off"),
        (TEXT.replace("\n", "\r\n").encode(), "", "take -t off docker exec"),
    ],
)
def test_what_is_no_dump_is_not_kept(folder: Path, tmp_path: Path, content: bytes, then: str, words: str) -> None:
    assert words in _fails(folder, mode="command", command=_printing(tmp_path, content, then=then))


def test_a_program_that_is_not_there_is_told(folder: Path) -> None:
    assert _fails(folder, mode="command", command=["no-such-docker"]) == (
        "no-such-docker cannot be run: No such file or directory"
    )


def test_a_command_is_no_shells_line(folder: Path, tmp_path: Path) -> None:
    _fails(folder, mode="command", command=["echo", f"x; touch {tmp_path}/made", "$(id)"])
    assert not (tmp_path / "made").exists()


def test_a_program_that_does_not_end_is_ended_with_its_children(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child holds the output open: were it left, this would wait for ever."""
    settings = _settings(mode="command", command=["sh", "-c", "echo x; sleep 3600 & wait"])
    with pytest.raises(FreshDumpFailed, match="did not end within 1 s"):
        make(settings.model_copy(update={"fresh_minutes": 1 / 60}), folder, now=NOW, environment=os.environ)
    assert os.listdir(folder) == []


def test_many_words_of_a_program_do_not_hold_it_up(folder: Path, tmp_path: Path) -> None:
    command = _printing(tmp_path, TEXT.encode(), then="head -c 3000000 /dev/zero | tr '\\0' e >&2")
    assert _make(folder, mode="command", command=command)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FreshDumpFailed, match="cannot be used"):
        _make(tmp_path / "none", mode="command", command=_printing(tmp_path, TEXT.encode()))


@pytest.mark.parametrize("by_file", [True, False])
def test_the_password_comes_from_a_file_or_from_systemd(folder: Path, tmp_path: Path, by_file: bool) -> None:
    secret = tmp_path / "database-password"
    secret.write_text("correct horse\nsecond line\n")
    command = ["sh", "-c", 'echo "<$PGPASSWORD>" >&2; exit 1']
    values: dict[str, Any] = {"mode": "command", "command": command}
    if by_file:
        assert "<correct horse>" in _fails(folder, password_file=str(secret), **values)
        return
    with pytest.raises(FreshDumpFailed, match="<correct horse>"):
        _make(folder, env={"CREDENTIALS_DIRECTORY": str(tmp_path)}, **values)


def test_a_secret_that_cannot_be_read_is_told(folder: Path, tmp_path: Path) -> None:
    said = _fails(folder, mode="pg_dump", password_file=str(tmp_path / "none"))
    assert said == f"{tmp_path}/none cannot be read: No such file or directory"


# Immich's API ---------------------------------------------------------------------------------------------


def _ask(immich: FakeImmich, *, key: str = KEY, seconds: float = 60, path: str = "") -> None:
    ImmichApi(immich.url + path, key, pause=lambda _: None).make_dump(seconds=seconds)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("path", ["", "/", "/api", "/api/"])
def test_immich_is_asked_and_waited_for(old: bool, path: str) -> None:
    made: list[int] = []
    with serving(FakeImmich(old=old, looks=3, makes=lambda: made.append(1))) as immich:
        _ask(immich, path=path)
    assert made == [1]
    assert immich.asked.count("POST /api/jobs") == 1


@pytest.mark.parametrize("old", [False, True])
def test_a_job_that_fails_is_told_though_others_failed_before(old: bool) -> None:
    with serving(FakeImmich(old=old, makes=None)) as immich, pytest.raises(FreshDumpFailed, match=r"job .* failed"):
        _ask(immich)


@pytest.mark.parametrize(
    ("immich", "key", "words"),
    [
        (FakeImmich(), "wrong", "does not accept the API key"),
        (FakeImmich(), "", "There is no API key"),
        (FakeImmich(paused=True), KEY, "is paused"),
        (FakeImmich(answers={"/api/jobs": (500, b"", {})}), KEY, r"answers with an error \(500\)"),
        (FakeImmich(answers={"/api/queues/backupDatabase": (200, b"<html>", {})}), KEY, "is not an Immich"),
        (FakeImmich(answers={"/api/queues/backupDatabase": (200, b"[1]", {})}), KEY, "is not an Immich"),
        (FakeImmich(answers={"/api/queues/backupDatabase": (200, b"{}", {})}), KEY, "is not an Immich"),
        (FakeImmich(answers={"/api/queues/backupDatabase": (200, b"[" * 100_000, {})}), KEY, "is not an Immich"),
        (FakeImmich(old=True, answers={"/api/jobs": (404, b"", {})}), KEY, "is not an Immich"),
    ],
)
def test_an_immich_that_does_not_do_it_is_told(immich: FakeImmich, key: str, words: str) -> None:
    immich = replace(immich, asked=[])
    with serving(immich), pytest.raises(FreshDumpFailed, match=words) as failed:
        _ask(immich, key=key)
    assert KEY not in failed.value.message


def test_the_key_does_not_follow_a_redirect() -> None:
    with serving(FakeImmich()) as other:
        away = {"location": f"{other.url}/api/queues/backupDatabase"}
        immich = FakeImmich(answers={"/api/queues/backupDatabase": (302, b"", away)})
        with serving(immich), pytest.raises(FreshDumpFailed, match="302"):
            _ask(immich)
    assert other.asked == []


def test_a_job_without_an_end_is_not_waited_for_for_ever() -> None:
    with serving(FakeImmich(looks=10**9)) as immich, pytest.raises(FreshDumpFailed, match="did not finish"):
        _ask(immich, seconds=0)


def test_nobody_at_the_address_is_told(folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        said = _fails(folder, mode="immich-api", api_url=url, api_key_file=str(key))
    assert said.startswith(f"Immich at {url}/api does not answer")


# The command and the unit ---------------------------------------------------------------------------------


@pytest.fixture
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd would be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def _configured(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return str(path)


def test_the_command_makes_immich_make_one(
    tmp_path: Path, folder: Path, notified: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(immich_api, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "immich-api-key").write_text(f"{KEY}\n")
    with serving(FakeImmich()) as immich:
        settings = f'[database]\nmode = "immich-api"\napi_url = "{immich.url}"\n'
        code = main(["make-dump", "--config", _configured(tmp_path, settings), "--folder", str(folder)])
    assert (code, notified.recv(1000)) == (0, b"STATUS=made a dump by Immich itself")


def test_the_command_tells_systemd_why_not_in_full(
    tmp_path: Path, folder: Path, notified: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "r" * 300
    command = f"echo {reason} >&2; exit 1"
    settings = f'[database]\nmode = "command"\ncommand = ["sh", "-c", "{command}"]\n'
    code = main(["make-dump", "--config", _configured(tmp_path, settings), "--folder", str(folder)])
    assert code == 1
    assert notified.recv(1000) == f"STATUS=failed: sh: {reason} (exit code 1)".encode()
    assert capsys.readouterr().out == f"failed: sh: {reason} (exit code 1)\n"


def test_the_command_goes_where_systemd_says(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(folder))
    (tmp_path / "dump.sql").write_text(TEXT)
    settings = f'[database]\nmode = "command"\ncommand = ["cat", "{tmp_path}/dump.sql"]\n'
    assert main(["make-dump", "--config", _configured(tmp_path, settings)]) == 0
    (made,) = newest_first(os.listdir(folder))
    assert capsys.readouterr().out == f"made {made.name}\n"


@pytest.mark.parametrize("text", ["nonsense", '[database]\nmode = "latest"\n'])
def test_a_configuration_without_a_way_is_told(
    tmp_path: Path, folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["make-dump", "--config", _configured(tmp_path, text), "--folder", str(folder)]) == 1
    assert capsys.readouterr().out.startswith("failed: ")


@pytest.fixture
async def systemd(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Systemd]:
    if host.find_program("dbus-daemon") is None:
        pytest.skip("there is no dbus-daemon")
    with host.system_bus(private=True) as bus:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        systemd = Systemd()
        await systemd.start()
        yield systemd
        assert systemd.bus is not None
        with contextlib.suppress(BusLost):
            await systemd.bus.close()


@pytest.fixture
async def maker(systemd: Systemd, folder: Path) -> AsyncIterator[SystemdDumpMaker]:
    bus = await Bus.system()
    yield SystemdDumpMaker(bus, folder)
    await bus.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((0, "made immich-db-backup-x.sql.gz"), None),
        ((1, "failed: pg_dump: no\x1b[2J (exit code 1)"), "pg_dump: no\\u001b[2J (exit code 1)"),
        ((1, ""), f"{UNIT} ended with success (1)"),
    ],
)
async def test_the_daemon_hears_what_the_unit_said(
    systemd: Systemd, maker: SystemdDumpMaker, answer: tuple[int, str], reason: str | None
) -> None:
    systemd.answer = answer
    assert await maker.make(seconds=20) == reason
    assert systemd.asked == [("stop", UNIT), ("start", UNIT), ("stop", UNIT)]


async def test_a_unit_that_was_ended_made_nothing(systemd: Systemd, maker: SystemdDumpMaker) -> None:
    systemd.answer, systemd.fails, systemd.result = (0, ""), True, "timeout"
    assert await maker.make(seconds=20) == f"{UNIT} ended with timeout (0)"


async def test_a_unit_that_systemd_does_not_have_is_told(systemd: Systemd, maker: SystemdDumpMaker) -> None:
    systemd.refuses = f"{NAME}.NoSuchUnit"
    assert str(await maker.make(seconds=20)).startswith(f"systemd does not run {UNIT}")


async def test_a_unit_without_an_end_is_stopped(systemd: Systemd, maker: SystemdDumpMaker) -> None:
    systemd.answer = None
    with pytest.raises(DeadlineMissed):
        await maker.make(seconds=0)
    assert systemd.asked[-1] == ("stop", UNIT)
