"""What `doctor` finds: a whole set-up is called so, and each broken one is named with what mends it."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support.needs import cannot_run
from tests.support.set_up import CONFIG, DISK, DUMP, DUMP_TEXT, NOW, STATE, SetUp, refused, set_up, unit

from immich_usb_backup import __main__
from immich_usb_backup.dbus_names import BUS_NAME
from immich_usb_backup.doctor import checked, immich, machine, system
from immich_usb_backup.doctor.checked import Checked, Result, lines, summary
from immich_usb_backup.doctor.everything import look
from immich_usb_backup.doctor.machine import Machine, Ran
from immich_usb_backup.model import Outcome
from immich_usb_backup.policy.cells import plain

MAIL = '[mail]\nhost = "smtp.example.org"\nto = ["me@example.org"]'


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetUp:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    return set_up(tmp_path / "root")


def found(whole: SetUp) -> list[Checked]:
    return list(look(whole.machine(), CONFIG, STATE, send_mail=False))


def problems(whole: SetUp) -> dict[str, Checked]:
    """The first problem of each check."""
    return {one.about: one for one in reversed(found(whole)) if one.result is Result.PROBLEM}


def test_a_whole_set_up_has_no_problem(whole: SetUp) -> None:
    everything = found(whole)
    assert problems(whole) == {}
    assert len(everything) > 30
    assert all(one.text and one.about for one in everything)
    seen = {one.about for one in everything if one.result is Result.OK}
    assert {"users", "group", "UDisks2", "rsync", "exFAT", "upload", "newest dump", "trust", "power", "clock"} <= seen


def _without(name: str) -> Callable[[SetUp], None]:
    return lambda whole: next(whole.root.rglob(name)).unlink()


def _program(key: str, ran: Ran | None) -> Callable[[SetUp], None]:
    return lambda whole: whole.programs.update({key: ran})


def _units(**changes: dict[str, str]) -> Callable[[SetUp], None]:
    names = (*system.RUNNING, *system.ON_DEMAND)
    short = {name.removeprefix("immich-usb-backup").strip("-").split(".")[0].split("@")[0]: name for name in names}
    wrong = {short[key if key != "service" else ""]: change for key, change in changes.items()}
    text = "\n\n".join(unit(name, **wrong.get(name, {})) for name in names)
    return _program("systemctl show", Ran(0, text))


def _configured(*settings: str) -> Callable[[SetUp], None]:
    return lambda whole: whole.configure(*settings)


def _only_run(days: int, outcome: Outcome = Outcome.OK) -> Callable[[SetUp], None]:
    return lambda whole: whole.had_run(days=days, outcome=outcome)


def _stuck(whole: SetUp) -> None:
    file = whole.write(STATE / "outbox/r1.json", "{}")
    old = (NOW - timedelta(hours=3)).timestamp()
    os.utime(file, (old, old))


def _no_timer(whole: SetUp) -> None:
    whole.configure('[disk.Blue]\nschedule = "daily 03:00"')
    whole.programs["systemctl is-active"] = Ran(3, "inactive\n")


def _open_password(whole: SetUp) -> None:
    whole.configure(f'{MAIL}\nusername = "me"')
    whole.write("/etc/immich-usb-backup/smtp-password", "x").chmod(0o644)


def _old_dump(whole: SetUp) -> None:
    whole.now = NOW + timedelta(days=4)


def _future_dump(whole: SetUp) -> None:
    whole.now = NOW - timedelta(days=2)
    whole.configure("[freshness]\ndue_days = 0")


def _set(**changes: object) -> Callable[[SetUp], None]:
    def change(whole: SetUp) -> None:
        for name, value in changes.items():
            setattr(whole, name, value)

    return change


def _answer(name: str, answer: object) -> Callable[[SetUp], None]:
    return lambda whole: whole.answers.update({name: answer})


BROKEN: dict[str, tuple[Callable[[SetUp], object], str, str, str]] = {
    "no user": (_program("getent passwd", Ran(2, "")), "users", "cannot start", "install-system"),
    "no group": (_program("getent group", Ran(2, "")), "group", "only root", "install-system"),
    "service dead": (
        _units(service={"ActiveState": "failed", "Result": "exit-code"}),
        *("immich-usb-backup.service", "does not run (failed, exit-code)", "journalctl -u immich-usb-backup.service"),
    ),
    "service disabled": (
        _units(service={"UnitFileState": "disabled"}),
        *("immich-usb-backup.service", "after the next start", "systemctl enable --now"),
    ),
    "service masked": (
        _units(service={"LoadState": "masked"}),
        *("immich-usb-backup.service", "masked", "systemctl unmask immich-usb-backup.service"),
    ),
    "outbox unwatched": (
        _units(notifier={"LoadState": "not-found"}),
        *("units that are started when needed", "notifier.service missing", "install-system"),
    ),
    "no check unit": (
        _units(check={"LoadState": "not-found"}),
        *("units that are started when needed", "immich-usb-backup-check@.service missing", "install-system"),
    ),
    "a dump failed": (
        _units(dump={"ActiveState": "failed"}),
        *("units that are started when needed", "dump.service failed", "journalctl"),
    ),
    "no udev rule": (_without("90-immich-usb-backup.rules"), "udev rule", "not started for a disk", "install-system"),
    "no polkit rule": (_without("50-immich-usb-backup.rules"), "polkit rule", "may not mount", "install-system"),
    "no polkit actions": (_without("*.policy"), "polkit actions", "nobody but root", "install-system"),
    "no D-Bus policy": (_without("io.*.conf"), "D-Bus policy", "cannot reach", "install-system"),
    "rule not read": (
        _program("udevadm info", Ran(0, DISK.replace(":immich-usb-backup", ""))),
        *("udev rule at work", "/dev/sdb1 is not tagged", "udevadm control --reload"),
    ),
    "not on the bus": (_answer("NameHasOwner", False), "D-Bus name", "nobody answers", "journalctl"),
    "no bus": (_answer("NameHasOwner", refused("Failed")), "D-Bus name", "does not answer", "systemctl status dbus"),
    "no polkit": (_answer("BackendVersion", refused("ServiceUnknown")), "polkit", "may not mount a disk", "polkitd"),
    "old one runs": (_answer(f"{BUS_NAME} Version", "1.1"), "D-Bus name", "1.1, and 1.2 is installed", "restart"),
    "timer dead": (
        _no_timer,
        *("schedule of 'Blue'", "its timer does not run", "daemon-reload"),
    ),
    "no UDisks2": (
        _answer("org.freedesktop.UDisks2 Version", refused("ServiceUnknown")),
        "UDisks2",
        "no disk can be mounted",
        "udisks2",
    ),
    "no rsync": (_program("rsync --version", None), "rsync", "nothing can be copied", "apt-get install rsync"),
    "old rsync": (_program("rsync --version", Ran(0, "rsync  version 3.0.9 ")), "rsync", "3.0.9 is too old", "3.1"),
    "no exFAT": (_program("modinfo -n", Ran(1, "")), "exFAT", "no disk can be mounted", "exfat-fuse"),
    "no fsck": (_set(there={"pg_dump"}), "fsck.exfat", "unchecked", "exfatprogs"),
    "no folder": (_without("upload/.immich"), "upload", "/immich/upload/.immich is not there", "mounted"),
    "closed folder": (_set(closed={"immich/library"}), "library", "cannot be read by immich-usb-backup", "mounted"),
    "no config file": (_configured('config_files = ["/none"]'), "config_files", "/none is not there", "config_files"),
    "no extra": (_configured('[extra]\np = "/none"'), "extra.p", "/none is not there", "[extra]"),
    "no dump": (_without(DUMP), "newest dump", "there is none", "Switch dumps on"),
    "dump cut off": (
        lambda whole: whole.write(f"/immich/backups/{DUMP}", gzip.compress(DUMP_TEXT[:40])),
        *("newest dump", "is damaged", "make a new dump"),
    ),
    "dump old": (_old_dump, "newest dump", "what came later is not in it", "settings"),
    "dump of tomorrow": (_future_dump, "newest dump", "of the future", "timedatectl"),
    "no pg_dump": (_set(there={"fsck.exfat"}), "fresh dumps", "pg_dump is not installed", "fresh-dumps.md"),
    "no database": (
        _configured('[database]\nmode = "pg_dump"\nurl = "postgresql:///immich?host=/run/pg"'),
        *("fresh dumps", "nobody answers", "fresh-dumps.md"),
    ),
    "no API key": (
        _configured('[database]\nmode = "immich-api"\napi_key_file = "/none"\napi_url = "http://127.0.0.1:9"'),
        *("fresh dumps", "", "fresh-dumps.md"),
    ),
    "nobody enrolled": (_configured('[disks]\ntrust = "enrolled"'), "trust", "nothing will be backed up", "enroll"),
    "late disk": (_only_run(41), "disk 'Blue'", "41 days ago", "forget"),
    "never good": (_only_run(35, Outcome.FAILED), "disk 'Blue'", "no good backup yet", "Plug it in"),
    "no backup yet": (_without("state.db"), "disks", "no backup was made yet", "prepare-a-disk"),
    "on battery": (_set(on_battery=True), "power", "waits until mains power", "mains"),
    "clock free": (_answer("NTPSynchronized", False), "clock", "nothing keeps it right", "timedatectl"),
    "clock wrong": (_set(now=NOW.replace(year=1970)), "clock", "1970", "timedatectl"),
    "open password": (_open_password, "mail", "can be read by everybody", "mail.md"),
    "no password": (_configured(f'{MAIL}\nusername = "me"'), "mail", "is not there", "mail.md"),
    "stuck mail": (_stuck, "outbox", "1 message waits, the oldest for 3 h", "journalctl -u immich-usb-backup-notifier"),
    "agent off": (
        _program("systemctl --global", Ran(1, "disabled\n")),
        *("desktop agent", "desktops show nothing", "systemctl --global enable"),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_named_and_how_to_mend_it(what: str, whole: SetUp) -> None:
    breaks, about, text, todo = BROKEN[what]
    breaks(whole)
    if what == "no pg_dump":
        whole.configure('[database]\nmode = "pg_dump"')
    wrong = problems(whole)
    assert about in wrong
    assert text in wrong[about].text
    assert todo in wrong[about].todo
    if what not in {"clock wrong", "dump of tomorrow", "dump old", "no pg_dump", "no API key"}:
        assert set(wrong) == {about}, "nothing else is called broken"


@pytest.fixture
def listening(whole: SetUp) -> Iterator[socket.socket]:
    """PostgreSQL's socket, where the configuration says that it is."""
    folder = whole.root / "run/pg"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(folder / ".s.PGSQL.5433"))
        there.listen()
        yield there


@pytest.mark.usefixtures("listening")
def test_a_database_that_answers_is_enough_for_fresh_dumps(whole: SetUp) -> None:
    whole.configure('[database]\nmode = "pg_dump"\nurl = "postgresql:///immich?host=/run/pg&port=5433"')
    said = [one for one in found(whole) if one.about == "fresh dumps"]
    assert [one.text for one in said] == ["pg_dump is installed", "the database answers"]


@pytest.fixture
def immichs_port() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"res":"pong"}' if self.path == "/api/server/ping" else b"a router's page")

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(("path", "result"), [("", Result.OK), ("/elsewhere", Result.PROBLEM)])
def test_immich_itself_must_be_who_answers(whole: SetUp, immichs_port: int, path: str, result: Result) -> None:
    whole.configure(f'[database]\nmode = "immich-api"\napi_url = "http://127.0.0.1:{immichs_port}{path}"')
    (said,) = (one for one in found(whole) if one.about == "fresh dumps")
    assert said.result is result


def test_an_unusable_configuration_is_shown_and_the_rest_of_the_system_is_still_looked_at(whole: SetUp) -> None:
    whole.write(CONFIG, 'media_locaton = "/x"')
    said = {one.about: one for one in found(whole)}
    assert "did you mean media_location?" in said["configuration"].text
    assert said["UDisks2"].result is Result.OK
    assert said["everything else"].result is Result.UNSEEN


def test_a_machine_without_the_service_running_is_looked_at_all_the_same(whole: SetUp) -> None:
    whole.answers["NameHasOwner"] = False
    whole.programs["systemctl show"] = None
    said = {one.about: one for one in found(whole)}
    assert said["units"].result is Result.UNSEEN
    assert said["newest dump"].result is Result.OK


def test_a_user_without_rights_is_told_what_could_not_be_seen(whole: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an ordinary user: everything of Immich's and of the service is closed."""
    whole.is_root = False
    shut = {str(whole.root / name) for name in ("immich", "etc/polkit-1/rules.d", "var/lib/immich-usb-backup")}

    def closed(path: Path) -> bool:
        return any(str(path).startswith(prefix) for prefix in shut)

    def denied(path: Path, *_: object, **__: object) -> os.stat_result:
        if closed(path):
            raise PermissionError(13, "Permission denied")
        return os.stat(path)

    def no_list(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    monkeypatch.setattr("os.listdir", no_list)
    monkeypatch.setattr("os.scandir", no_list)
    said = {one.about: one for one in found(whole)}
    for about in ("polkit rule", "upload", "newest dump", "outbox"):
        assert said[about].result is Result.UNSEEN, about
        assert "sudo" in said[about].todo, about
    assert said["udev rule"].result is said["disk 'Blue'"].result is Result.OK
    whole.answers["GetDisks"] = [{"Name": "Blue", "Known": True, "LastGood": 0, "Late": True}, {"Name": "New"}]
    assert [one.text for one in found(whole) if one.about.startswith("disk '")] == ["no good backup yet: it is late"]
    whole.answers["GetDisks"] = refused("ServiceUnknown")
    (disks,) = (one for one in found(whole) if one.about == "disks")
    assert (disks.result, "sudo" in disks.todo) == (Result.UNSEEN, True)


@pytest.mark.parametrize(
    ("program", "ran", "about"),
    [
        ("systemctl --user", Ran(3, "inactive\n"), "desktop messages"),
        ("busctl --user", Ran(0, "org.freedesktop.systemd1 1 systemd\n"), "notification server"),
    ],
)
def test_in_a_desktop_session_the_agent_and_who_shows_it_are_looked_at(
    whole: SetUp, monkeypatch: pytest.MonkeyPatch, program: str, ran: Ran, about: str
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/1000/bus")
    whole.is_root = False
    whole.programs |= {
        "systemctl --user": Ran(0, "active\n"),
        "busctl --user": Ran(0, "org.freedesktop.Notifications 7 dunst\n"),
    }
    assert problems(whole) == {}
    whole.programs[program] = ran
    assert set(problems(whole)) == {about}


def test_the_default_trust_is_said_clearly_and_no_problem(whole: SetUp) -> None:
    (trust,) = (one for one in found(whole) if one.about == "trust")
    assert trust.result is Result.OK
    assert "Any disk with the marker" in trust.text
    assert "enroll" in trust.todo


def test_mail_is_not_called_good_before_a_message_arrived(whole: SetUp) -> None:
    whole.configure(MAIL)
    (mail,) = (one for one in found(whole) if one.about == "mail")
    assert mail.result is Result.UNSEEN
    assert "--send-test-mail" in mail.todo


def test_what_disks_and_files_are_called_does_no_harm() -> None:
    (shown,) = lines(checked.good("disk", "a\x1b[2Jb\nc"), 80)
    assert plain(shown) == "ok  disk: a\\u001b[2Jb\\nc"


def test_in_a_narrow_terminal_nothing_is_cut_off() -> None:
    one = checked.bad("udev rule", "it is missing: the service is not started for a disk", "sudo ./scripts/install")
    shown = [plain(line) for line in lines(one, 40)]
    assert shown == [
        "!!  udev rule: it is missing: the",
        "    service is not started for a disk",
        "      sudo ./scripts/install",
    ]


def test_the_last_line_counts() -> None:
    one, other, left = checked.bad("a", "b", "c"), checked.good("a", "b"), checked.unseen("a", "b")
    assert summary([other]) == "No problem found."
    assert summary([one, other]) == "1 problem."
    assert summary([one, one, left]) == "2 problems; 1 not checked."


@pytest.mark.parametrize("broken", [False, True])
def test_the_command_prints_for_people_and_for_programs(
    broken: bool, whole: SetUp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if broken:
        whole.programs["rsync --version"] = None
    monkeypatch.setattr("immich_usb_backup.cli.doctor.Machine", whole.machine)
    assert __main__.main(["doctor"]) == int(broken)
    for_people = capsys.readouterr().out
    assert ("!!  rsync: is not installed: nothing can be copied\n      sudo apt-get" in for_people) == broken
    assert __main__.main(["doctor", "--json"]) == int(broken)
    rows = json.loads(capsys.readouterr().out)
    assert {row["result"] for row in rows} <= {"ok", "problem", "not-checked"}
    assert ("problem" in {row["result"] for row in rows}) == broken


def test_a_program_that_is_missing_fails_or_hangs_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine._run(["no-such-program-here"]) is None
    assert machine._run(["sh", "-c", "echo out; echo err >&2; exit 3"]) == Ran(3, "out\n", "err\n")
    monkeypatch.setattr(machine, "_SECONDS", 0.05)
    assert machine._run(["sleep", "60"]) == Ran(124, "", "it did not end")


def test_on_nixos_rules_and_policies_are_in_their_places(whole: SetUp) -> None:
    """The packages' folders `share`, linked together. (udev's rules are in /etc there, too.)"""
    for name, folder in {
        "polkit rule": "polkit-1/rules.d",
        "polkit actions": "polkit-1/actions",
        "D-Bus policy": "dbus-1/system.d",
    }.items():
        file, folders = system.PLACES[name]
        (whole.root / folders[0].lstrip("/") / file).unlink()
        whole.write(f"/run/current-system/sw/share/{folder}/{file}")
    assert problems(whole) == {}


def test_what_nixos_package_brings_along_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_STORE", f"{tmp_path}/store/")
    for folder in ("store/abc-rsync/bin", "home/bin"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "our-own-rsync").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/home/bin:/usr/bin")
    assert machine._find("our-own-rsync") is None
    monkeypatch.setenv("PATH", f"{tmp_path}/home/bin:{tmp_path}/store/abc-rsync/bin:/usr/bin")
    assert machine._find("our-own-rsync") == f"{tmp_path}/store/abc-rsync/bin/our-own-rsync"


def test_the_real_setpriv_looks_as_the_services_user_with_its_one_privilege(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        cannot_run("only root can become another user")
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.mkdir(mode=0o700)
    as_nobody = [part.replace(system.DAEMON_USER, "nobody") for part in immich._AS_SERVICE]
    monkeypatch.setattr(immich, "_AS_SERVICE", [part.replace("regid=nobody", "regid=nogroup") for part in as_nobody])
    assert [immich._state(Machine(), path) for path in (there, gone)] == ["there", "gone"]
    without = [part.replace("+dac_read_search", "-dac_read_search") for part in immich._AS_SERVICE]
    done = subprocess.run([*without, "--", "test", "-r", str(there)], check=False, timeout=30)
    assert done.returncode == 1, "without the privilege it is closed: the test above tells them apart"
