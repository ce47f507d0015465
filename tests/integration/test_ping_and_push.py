"""A monitor and pushed messages through a real HTTP server: what arrives, what is said when nothing does, and no secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup import config
from immich_usb_backup.adapters import threads
from immich_usb_backup.adapters.delivered import DeliveredLedger
from immich_usb_backup.adapters.outbox import OutboxFolder
from immich_usb_backup.adapters.ping import Pinger
from immich_usb_backup.adapters.push import NOBODY_KNOWN, Pusher
from immich_usb_backup.config import Config, Ping, Push
from immich_usb_backup.errors import BackupError, ConfigError, DeadlineMissed, DeliveryFailed
from immich_usb_backup.events import Event
from immich_usb_backup.model import Finding, Notice, NoticeKind, Outcome, Severity
from immich_usb_backup.notifier import Courier, NotifierPorts, deliver_all
from immich_usb_backup.policy.news import Begun, Ended, News, ended
from immich_usb_backup.policy.text import moment
from tests.support.telling import HOSTILE_NAMES, NOON, Recorder, SetClock, make_report

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # in Apprise

SECRET = "3a1f77c0-SECRET-99e2"
FULL = Finding(code="disk-full", severity=Severity.FAILED, message="The disk is full", hint="Take a larger one.")
FAILED = make_report(outcome=Outcome.FAILED, findings=(FULL,))
NOTICE = Notice(
    notice_id="n1",
    kind=NoticeKind.REMINDER,
    server="nas",
    time=NOON,
    headline="'Blue' is 41 days old",
    todo=("Plug it in.",),
)


class Web:
    """An HTTP server that takes everything, or does what a test wants instead."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, str]] = []
        self.status = 200
        self.location = ""
        self.silent = threading.Event()
        self.over = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
                if web.silent.is_set():
                    web.over.wait(30)
                    return
                web.taken.append((self.command, self.path, body))
                self.send_response(web.status)
                if web.location:
                    self.send_header("Location", web.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def ping(self) -> Ping:
        return Ping(url=f"http://127.0.0.1:{self.port}/{SECRET}")


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


async def _failure(courier: Courier, news: News, channel: str) -> BackupError:
    """Why it was not delivered; the secret is not in it, nor in what it came from."""
    try:
        error = (await courier.deliver(news, (channel,)))[channel]
    except BackupError as raised:
        error = raised
    assert SECRET not in f"{error.message} {error.hint}"
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    return error


# Ping -----------------------------------------------------------------------------------------------------


async def test_a_run_as_the_monitor_sees_it(web: Web) -> None:
    pinger = Pinger(web.ping)
    for news in (Begun(report=FAILED), Ended(report=FAILED), Ended(report=make_report())):
        assert await pinger.channels(news) == ("ping",)
        assert await pinger.deliver(news, ("ping",)) == {}
    (_, start, _), (_, fail, why), (_, good, _) = web.taken
    assert [method for method, _, _ in web.taken] == ["POST"] * 3
    run = start.partition("?rid=")[2]
    assert (start, fail) == (f"/{SECRET}/start?rid={run}", f"/{SECRET}/fail?rid={run}")
    assert len(run) == 36
    assert good.startswith(f"/{SECRET}?rid=")
    assert why.splitlines()[0] == "Backup to 'Blue' failed: safe to unplug"
    assert "The disk is full." in why
    assert await pinger.channels(NOTICE) == ()


@pytest.mark.parametrize("outcome", [Outcome.PARTIAL, Outcome.INTERRUPTED])
async def test_only_a_backup_without_a_problem_is_a_success(outcome: Outcome, web: Web) -> None:
    await Pinger(web.ping).deliver(Ended(report=make_report(outcome=outcome)), ("ping",))
    assert web.taken[0][1].startswith(f"/{SECRET}/fail?")


async def test_an_address_with_a_query_and_a_name_from_a_disk(web: Web) -> None:
    ping = Ping(url=f"http://127.0.0.1:{web.port}/ping/?key={SECRET}")
    for name in HOSTILE_NAMES:
        await Pinger(ping).deliver(Begun(report=make_report(name=name, server=name)), ("ping",))
    assert {path.partition("&rid=")[0] for _, path, _ in web.taken} == {f"/ping/start?key={SECRET}"}
    assert all(len(body.splitlines()) == 1 for _, _, body in web.taken)


async def test_the_address_from_a_file_and_as_a_credential(web: Web, tmp_path: Path) -> None:
    (tmp_path / "ping-url").write_text(f"{web.ping.url}\nnote")
    await Pinger(Ping(url_file=tmp_path / "ping-url")).deliver(Begun(report=FAILED), ("ping",))
    await Pinger(Ping(), credentials=tmp_path).deliver(Begun(report=FAILED), ("ping",))
    assert len(web.taken) == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (f"{SECRET}", "must be an address"),
        ("\n", "first line is empty"),
        (f"http://u:{SECRET}@h/", "user name"),
    ],
)
async def test_an_address_that_is_none(content: str | None, problem: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "ping-url").write_text(content)
    error = await _failure(Pinger(Ping(), credentials=tmp_path), Begun(report=FAILED), "ping")
    assert problem in error.message
    assert "no address" in (await _failure(Pinger(Ping()), Begun(report=FAILED), "ping")).message


def test_a_mistake_in_the_configuration_does_not_show_the_address() -> None:
    for url in (
        f"ftp://x/{SECRET}",
        f"https://x/ {SECRET}",
        f"{SECRET}",
        f"https://u:{SECRET}@x/",
        f"https://x/{SECRET}é",
    ):
        with pytest.raises(ConfigError, match=r"ping\.url: must") as caught:
            config.parse(f'[ping]\nurl = "{url}"'.encode(), origin="config.toml")
        assert SECRET not in caught.value.message
    with pytest.raises(ConfigError, match="one of them is enough") as caught:
        config.parse(f'[ping]\nurl = "https://x/{SECRET}"\nurl_file = "/x"'.encode(), origin="config.toml")
    assert SECRET not in caught.value.message
    assert config.parse(b"[ping]\n[push]", origin="x").ping == Ping()


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "does not know this address (404)"), (500, "the error 500"), (301, "another address (301)")],
)
async def test_a_monitor_that_says_no(status: int, words: str, web: Web) -> None:
    web.status, web.location = status, f"http://127.0.0.1:{web.port}/elsewhere"
    error = await _failure(Pinger(web.ping), Ended(report=FAILED), "ping")
    assert words in error.message
    assert isinstance(error, DeliveryFailed)
    assert not error.permanent, "it may be mended"
    assert len(web.taken) == 1, "nobody is followed elsewhere"


async def test_nobody_answers(web: Web) -> None:
    web.silent.set()
    assert (
        "did not answer in time"
        in (await _failure(Pinger(web.ping, seconds=0.2), Begun(report=FAILED), "ping")).message
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    gone = Pinger(Ping(url=f"http://127.0.0.1:{port}/{SECRET}"))
    assert "cannot be reached: Connection refused" in (await _failure(gone, Begun(report=FAILED), "ping")).message
    no_http = Pinger(Ping(url=f"https://127.0.0.1:{web.port}/{SECRET}"), seconds=1)
    web.silent.clear()
    assert "The monitor at 127.0.0.1 " in (await _failure(no_http, Begun(report=FAILED), "ping")).message


async def test_a_monitor_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read is in time, and it would still take for ever."""
    monkeypatch.setattr(threads, "_STOP_SECONDS", 0.0)
    over = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not over.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=[server], daemon=True)
        dripping.start()
        pinger = Pinger(Ping(url=f"http://127.0.0.1:{server.getsockname()[1]}/"), seconds=0.2)
        with pytest.raises(DeadlineMissed):
            await pinger.deliver(Begun(report=FAILED), ("ping",))
        over.set()
        await asyncio.to_thread(dripping.join, 5)


# Push -----------------------------------------------------------------------------------------------------


@pytest.fixture
def urls(tmp_path: Path, web: Web) -> Path:
    path = tmp_path / "push-urls"
    path.write_text(f"# phones\n\n  json://127.0.0.1:{web.port}/{SECRET}\njson://127.0.0.1:{web.port}/other-{SECRET}\n")
    return path


async def test_a_message_to_each_address(web: Web, urls: Path) -> None:
    pusher = Pusher(Push(), credentials=urls.parent)
    before = [replace(FAILED, run_id="r0", ended=NOON - timedelta(days=2))]
    channels = await pusher.channels(ended(FAILED, before))
    assert len(channels) == 2
    assert SECRET not in "".join(channels)
    assert await pusher.deliver(ended(FAILED, before), channels) == {}
    assert sorted(path for _, path, _ in web.taken) == [f"/{SECRET}", f"/other-{SECRET}"]
    message = json.loads(web.taken[0][2])
    since = moment(before[0].ended)
    assert message["title"] == f"Backup to 'Blue' failed: safe to unplug (2 times in a row since {since})"
    assert "The disk is full." in message["message"]
    assert "Take a larger one." in message["message"]
    assert message["type"] == "failure"


async def test_one_after_the_other_and_each_for_itself(web: Web, urls: Path) -> None:
    pusher = Pusher(Push(urls_file=urls))
    first, second = await pusher.channels(NOTICE)
    assert await pusher.deliver(NOTICE, (second,)) == {}
    assert [path for _, path, _ in web.taken] == [f"/other-{SECRET}"]
    web.status = 403
    failures = await pusher.deliver(NOTICE, (first,))
    assert failures[first].message == "The service answered with the error 403."


async def test_only_outcomes_that_are_wanted(urls: Path) -> None:
    pusher = Pusher(Push(urls_file=urls, on=(Outcome.FAILED,)))
    assert await pusher.channels(Ended(report=make_report())) == ()
    assert await pusher.channels(Begun(report=FAILED)) == ()
    assert len(await pusher.channels(Ended(report=FAILED))) == 2
    assert len(await pusher.channels(NOTICE)) == 2


async def test_what_cannot_be_sent_is_said_without_the_address(
    web: Web, urls: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    urls.write_text(f"json://127.0.0.1:{port}/{SECRET}\nnonsense-{SECRET}\nnosuch://{SECRET}")
    pusher = Pusher(Push(urls_file=urls))
    channels = await pusher.channels(NOTICE)
    reasons = [(await _failure(pusher, NOTICE, channel)) for channel in channels]
    assert "could not be reached" in reasons[0].message
    for reason in reasons[1:]:
        assert isinstance(reason, DeliveryFailed)
        assert reason.permanent
        assert "does not understand the address" in reason.message
    assert SECRET not in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"# nobody\n", b"\xff"])
async def test_a_list_that_cannot_be_read(content: bytes | None, urls: Path) -> None:
    urls.unlink()
    if content is not None:
        urls.write_bytes(content)
    pusher = Pusher(Push(urls_file=urls))
    assert await pusher.channels(NOTICE) == (NOBODY_KNOWN,)
    assert "The list of push addresses cannot be read" in (await _failure(pusher, NOTICE, NOBODY_KNOWN)).message
    assert "no address" in (await _failure(Pusher(Push()), NOTICE, NOBODY_KNOWN)).message


async def test_without_the_package_it_is_said_how_to_get_it(urls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    pusher = Pusher(Push(urls_file=urls))
    (channel, _) = await pusher.channels(NOTICE)
    error = await _failure(pusher, NOTICE, channel)
    assert error.message == "The package Apprise is not installed."
    assert "scripts/install" in error.hint


# The notifier with both -----------------------------------------------------------------------------------


async def test_both_over_a_restart_with_no_secret_in_the_journal_or_the_book(
    web: Web, urls: Path, tmp_path: Path
) -> None:
    outbox, state = tmp_path / "outbox", tmp_path / "state"
    outbox.mkdir()
    state.mkdir()
    log, clock = Recorder(), SetClock(NOON)
    ports = NotifierPorts(
        outbox=OutboxFolder(outbox, log),
        ledger=DeliveredLedger(state, log),
        couriers=(Pinger(web.ping), Pusher(Push(urls_file=urls))),
        log=log,
        clock=clock,
    )

    async def turn() -> bool:
        stop = asyncio.Event()
        task = asyncio.create_task(deliver_all(ports, stop=stop, poll_seconds=0.05))
        done, _ = await asyncio.wait({task}, timeout=20)
        stop.set()
        await asyncio.wait_for(task, 10)
        return bool(done)

    web.status = 503
    await OutboxFolder(outbox, log).put_begun(FAILED)
    await OutboxFolder(outbox, log).put(FAILED)
    stop = asyncio.Event()
    task = asyncio.create_task(deliver_all(ports, stop=stop, poll_seconds=0.05))
    async with asyncio.timeout(20):
        while log.events().count(Event.DELIVERY_FAILED) < 3:
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(task, 10)
    web.status = 200
    web.taken.clear()
    clock.move_on(hours=1)
    assert await turn()
    assert sorted(path.partition("?")[0] for _, path, _ in web.taken) == sorted(
        [f"/{SECRET}", f"/{SECRET}/fail", f"/other-{SECRET}"]
    )
    assert list(outbox.iterdir()) == []
    assert SECRET not in repr(log.said)
    assert SECRET not in (state / "delivered.json").read_text()
    assert {fields["channel"] for _, fields in log.said} == {"the ping address", "json by push"}


def test_the_defaults() -> None:
    assert (Config().ping, Config().push, Config().metrics.textfile) == (None, None, None)
