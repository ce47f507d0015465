"""No secret gets out: each is a canary that is looked for in all that the programs write, say and pass on, with real servers.

The programs run as processes of their own, as their units run them, with all their log's fields and the most of its lines.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from immich_usb_backup.__main__ import COMMANDS
from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.adapters.outbox import OutboxFolder
from immich_usb_backup.model import Outcome, PlugIn
from tests.support import samples
from tests.support.telling import Recorder, make_report

ROOT = Path(__file__).parents[2]
CANARY = "canary-3b9f2c"
MAIL, PING, PUSH, KEY, DATABASE = (f"{CANARY}-{what}" for what in ("mail", "ping", "push", "key", "database"))
PROGRAM = """
import functools, sys
from immich_usb_backup.__main__ import main
from immich_usb_backup.cli import notifier
notifier.make_log = functools.partial(notifier.make_log, form="json")
sys.exit(main(sys.argv[1:]))
"""
CHANNELS = ("me@example.org by mail", "the ping address", "json by push")
"""What the journal calls them."""
FAILED = make_report(outcome=Outcome.FAILED)


class Servers:
    """Mail and HTTP. Where ``refuses``, nothing is taken."""

    def __init__(self, *, refuses: bool) -> None:
        self.refuses = refuses
        self.seen: list[str] = []
        self.content: list[bytes] = []
        servers = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                servers.content.append(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
                servers.seen += [self.path, self.headers.get("x-api-key", "")]
                self.send_response(404 if servers.refuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: Any) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.web = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=[0.01], daemon=True).start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._mail = Controller(
                self, hostname="127.0.0.1", port=_free_port(), auth_require_tls=False, authenticator=self._log_in
            )
            self._mail.start()
        self.mail = int(self._mail.port)

    def _log_in(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.seen.append(data.password.decode())
        return AuthResult(success=not self.refuses, handled=False)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.content.append(cast(bytes, envelope.content))
        return "250 taken"

    def close(self) -> None:
        self._mail.stop()
        self._http.shutdown()
        self._http.server_close()


def _free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as one:
        return int(one.server_address[1])


@pytest.fixture(params=["taken", "refused"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    running = Servers(refuses=request.param == "refused")
    yield running
    running.close()


def _credentials(folder: Path, web: int) -> Path:
    """As systemd hands them over, all of them."""
    folder.mkdir()
    secrets = {
        "smtp-password": MAIL,
        "ping-url": f"http://127.0.0.1:{web}/{PING}",
        "push-urls": f"json://127.0.0.1:{web}/{PUSH}",
        "immich-api-key": KEY,
        "database-password": DATABASE,
    }
    for name, secret in secrets.items():
        (folder / name).write_text(f"{secret}\n")
    return folder


def _configure(folder: Path, mail: int, more: str = "") -> Path:
    path = folder / "config.toml"
    path.write_text(
        f'{more}\n[ping]\n[push]\n[mail]\nhost = "127.0.0.1"\nport = {mail}\nsecurity = "none"\n'
        'username = "me"\nfrom = "nas@example.org"\nto = ["me@example.org"]\n[logging]\nlevel = "debug"\n'
    )
    return path


def _start(folder: Path, credentials: Path, *arguments: str, path: str = "") -> subprocess.Popen[str]:
    environment = {
        "PATH": f"{path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "daemon"),
        "CREDENTIALS_DIRECTORY": str(credentials),
        "HOME": str(folder),
    }
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _process(number: int) -> bytes:
    """What everybody may read of a process, and what its user may."""
    return b"".join(Path(f"/proc/{number}/{name}").read_bytes() for name in ("cmdline", "environ"))


def _files(*folders: Path) -> bytes:
    found = (path for folder in folders for path in folder.rglob("*"))
    return b"".join(os.fsencode(path) + (path.read_bytes() if path.is_file() else b"") for path in found)


async def test_the_notifier_keeps_its_secrets(servers: Servers, tmp_path: Path) -> None:
    """Delivered, or refused by each: the password, the monitor's address and that of a phone."""
    outbox, state = tmp_path / "outbox", tmp_path / "state"
    outbox.mkdir()
    state.mkdir()
    await OutboxFolder(outbox, Recorder()).put(FAILED)
    config = _configure(tmp_path, servers.mail)
    folders = ("--config", str(config), "--outbox", str(outbox), "--state", str(state))
    process = _start(tmp_path, _credentials(tmp_path / "secrets", servers.web), "notifier", *folders)
    assert process.stdout is not None
    said = process.stdout.readline()
    running = _process(process.pid)
    while not all(word in said for word in CHANNELS) and (line := process.stdout.readline()):
        said += line
    process.terminate()
    said += process.communicate(timeout=30)[0]
    assert all(word in said for word in CHANNELS), said
    assert {MAIL, f"/{PUSH}"} < set(servers.seen), "else nothing was tried"
    assert any(path.startswith(f"/{PING}") for path in servers.seen)
    assert bool(_mails(servers)) is not servers.refuses
    for where in (said.encode(), running, _files(outbox, state), *servers.content):
        assert CANARY.encode() not in where, where


def _mails(servers: Servers) -> list[bytes]:
    return [one for one in servers.content if b"Subject:" in one]


PG_DUMP = """#!{python} -I
import os, sys
with open("{folder}/seen", "wb") as file:
    for name in ("cmdline", "environ"):
        for process in ("self", str(os.getppid())):
            with open(f"/proc/{{process}}/{{name}}", "rb") as source:
                file.write(source.read() + b"\\n")
with open(os.environ["PGPASSFILE"]) as file, open("{folder}/given", "w") as given:
    print(__import__("hashlib").sha256(file.read().encode()).hexdigest(), file=given, end="")
print(open("{folder}/dump.sql").read() if not {fails} else sys.exit("pg_dump: error: it fails"))
"""


@pytest.mark.parametrize("fails", [False, True])
def test_pg_dump_is_given_the_password_where_nobody_else_sees_it(tmp_path: Path, *, fails: bool) -> None:
    """Neither in its arguments nor in its environment, nor in a file."""
    programs, dumps = tmp_path / "bin", tmp_path / "dumps"
    programs.mkdir()
    dumps.mkdir()
    (tmp_path / "dump.sql").write_text(samples.dump_text([]))
    (programs / "pg_dump").write_text(PG_DUMP.format(python=sys.executable, folder=tmp_path, fails=fails))
    (programs / "pg_dump").chmod(0o755)
    config = _configure(tmp_path, 1, '[database]\nmode = "pg_dump"\nurl = "postgresql:///immich"\n')
    credentials = _credentials(tmp_path / "secrets", 1)
    arguments = ("make-dump", "--config", str(config), "--folder", str(dumps))
    process = _start(tmp_path, credentials, *arguments, path=str(programs))
    said, _ = process.communicate(timeout=30)
    assert ("pg_dump: error: it fails" in said) is fails, said
    assert process.returncode == int(fails), said
    given = hashlib.sha256(f"*:*:*:*:{DATABASE}\n".encode()).hexdigest()
    assert (tmp_path / "given").read_text() == given
    for where in (said.encode(), (tmp_path / "seen").read_bytes(), _files(dumps)):
        assert CANARY.encode() not in where, where


def test_immichs_api_key_is_not_shown(servers: Servers, tmp_path: Path) -> None:
    api = f'[database]\nmode = "immich-api"\napi_url = "http://127.0.0.1:{servers.web}"\n'
    config = _configure(tmp_path, 1, api)
    credentials = _credentials(tmp_path / "secrets", 1)
    process = _start(tmp_path, credentials, "make-dump", "--config", str(config), "--folder", str(tmp_path))
    running = _process(process.pid)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 1, "the server is not Immich"
    assert KEY in servers.seen
    for where in (said.encode(), running):
        assert CANARY.encode() not in where, where


# What commands show -----------------------------------------------------------------------------------------

NEEDED = {
    "show": ["r1"],
    "check": ["{}/dump"],
    "rehearse": ["{}"],
    "plan": ["Blue"],
}
"""Arguments of commands that take some."""


def _section(name: str) -> str:
    """What the documents say of a command; a test holds its options to the program's."""
    commands = (ROOT / "docs" / "reference" / "commands.md").read_text()
    return commands.split(f"\n## `{name}`")[-1].split("\n## ")[0]


async def _history(state: Path) -> None:
    history = SqliteHistory(state / "state.db")
    await history.prepare()
    await history.begin(FAILED, PlugIn(boot_id="b", disk_sequence=1, device_number=1))
    await history.finish(FAILED)


async def test_no_command_shows_what_the_configuration_has(tmp_path: Path) -> None:
    """With the address of the monitor in the configuration itself, and everything else in files that it names."""
    credentials = _credentials(tmp_path / "secrets", 1)
    files = f'api_key_file = "{credentials}/immich-api-key"\npassword_file = "{credentials}/database-password"'
    config = tmp_path / "config.toml"
    config.write_text(
        f'[database]\nmode = "immich-api"\napi_url = "http://127.0.0.1:1"\n{files}\n'
        f'[ping]\nurl = "http://127.0.0.1:1/{PING}"\n[push]\nurls_file = "{credentials}/push-urls"\n'
        f'[mail]\nhost = "127.0.0.1"\nport = 1\nsecurity = "none"\nusername = "me"\nto = ["me@example.org"]\n'
        f'password_file = "{credentials}/smtp-password"\n'
    )
    await _history(tmp_path)
    with_json = [name for name in COMMANDS if "`--json`" in _section(name)]
    assert {"status", "history", "doctor"} < set(with_json)
    for name in (*with_json, "check-config"):
        said = _shown(name, tmp_path, config)
        assert CANARY not in said, (name, said)


def _shown(name: str, folder: Path, config: Path) -> str:
    page = _section(name)
    arguments = [one.format(folder) for one in NEEDED.get(name, [])]
    arguments += [option for option in ("--json", "--send-test-mail") if f"`{option}`" in page]
    arguments += ["--config", str(config)] if "`--config`" in page else []
    arguments += ["--state", str(folder)] if "`--state`" in page else []
    arguments += [str(config)] if name == "check-config" else []
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "daemon"),
        "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent",
    }
    command = [sys.executable, "-m", "immich_usb_backup", name, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.stdout or done.stderr, name
    return done.stdout + done.stderr
