"""The unit that makes dumps, and who may start it; the section of the configuration that it reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.unit.test_system_files import (
    DAEMON,
    NOTIFIER,
    QUESTIONS,
    STATE,
    SYSTEMD,
    UNITS,
    directives,
    needs_node,
    needs_systemd,
    run,
)

from immich_usb_backup import config
from immich_usb_backup.__main__ import main
from immich_usb_backup.adapters.fresh_dumps import UNIT
from immich_usb_backup.cli.paths import dumps_beside
from immich_usb_backup.config import Database
from immich_usb_backup.errors import ConfigError

SECRETS = {"immich-api-key", "database-password"}


# The unit -------------------------------------------------------------------------------------------------


@needs_systemd
def test_the_unit_is_valid_and_locked_down(tmp_path: Path) -> None:
    unit = tmp_path / UNIT
    unit.write_text((SYSTEMD / UNIT).read_text().replace("/usr/local/bin/immich-usb-backup", "/bin/true"))
    verified = run("systemd-analyze", "verify", "--recursive-errors=no", unit)
    assert (verified.returncode, verified.stderr) == (0, "")
    secured = run("systemd-analyze", "security", "--offline=true", "--threshold=12", "--no-pager", unit)
    assert secured.returncode == 0, secured.stdout


def test_its_answer_stays_until_it_is_read() -> None:
    unit = directives(UNIT)
    assert (unit["Type"], unit["RemainAfterExit"], unit["NotifyAccess"]) == (["oneshot"], ["yes"], ["main"])
    assert unit["SuccessExitStatus"] == ["1"]
    assert unit["ExecStart"] == ["/usr/local/bin/immich-usb-backup make-dump"]


def test_it_gives_up_after_whatever_can_be_configured() -> None:
    limits = Database.model_json_schema()["properties"]["fresh_minutes"]
    (hours,) = re.findall(r"^(\d+)h$", directives(UNIT)["TimeoutStartSec"][0])
    assert int(hours) * 60 > limits["maximum"]


def test_it_sees_neither_photos_nor_disks_and_has_no_capability() -> None:
    unit = directives(UNIT)
    assert {"-/var/lib/immich", "-/srv", "-/mnt", "-/media", "-/run/media"} <= set(unit["InaccessiblePaths"][0].split())
    assert (unit["ProtectSystem"], unit["ProtectHome"]) == (["strict"], ["yes"])
    assert "ReadWritePaths" not in unit
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [""]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert len({directives(name)["User"][0] for name in (DAEMON, NOTIFIER, UNIT)}) == 3


def test_it_writes_where_the_daemon_looks() -> None:
    assert [f"/var/lib/{name}" for name in directives(UNIT)["StateDirectory"]] == [str(dumps_beside(Path(STATE)))]
    assert directives(UNIT)["StateDirectoryMode"] == ["0700"]


def test_it_does_not_reach_the_internet() -> None:
    unit = directives(UNIT)
    assert unit["IPAddressDeny"] == ["any"]
    allowed = set(unit["IPAddressAllow"][0].split())
    assert allowed == {"localhost", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"}


def test_its_secrets_are_optional_and_kept_from_the_daemon() -> None:
    unit = directives(UNIT)
    assert unit["LoadCredential"] == [f"{name}:/etc/immich-usb-backup/{name}" for name in sorted(SECRETS, reverse=True)]
    assert unit["SetCredential"] == [f"{name}:\\n" for name in sorted(SECRETS, reverse=True)]
    hidden = " ".join(directives(DAEMON)["InaccessiblePaths"]).split()
    assert {f"-/etc/immich-usb-backup/{name}" for name in SECRETS} <= set(hidden)


@needs_node
def test_the_daemon_may_start_and_stop_it_and_nobody_else() -> None:
    def says(user: str, unit: str, verb: str) -> str | None:
        question = [(user, UNITS, {"unit": unit, "verb": verb})]
        done = run("node", "-e", QUESTIONS, SYSTEMD / "50-immich-usb-backup.rules", json.dumps(question))
        (answer,) = json.loads(done.stdout)
        return str(answer) if answer else None

    assert [says("immich-usb-backup", UNIT, verb) for verb in ("start", "stop")] == ["yes", "yes"]
    assert says("immich-usb-backup", UNIT, "restart") is None
    assert says("immich-usb-backup-notify", UNIT, "start") is None
    for other in ("immich-usb-backup-dump@x.service", "immich-usb-backup-dump.timer", f"x{UNIT}", f"{UNIT}.d"):
        assert says("immich-usb-backup", other, "start") is None


# The configuration ----------------------------------------------------------------------------------------


def _problems(section: str) -> str:
    with pytest.raises(ConfigError) as refused:
        config.parse(f"[database]\n{section}\n".encode(), origin="config.toml")
    return "\n".join(refused.value.problems)


def test_a_way_is_one_that_there_is() -> None:
    assert "should be 'latest', 'pg_dump', 'immich-api' or 'command'" in _problems('mode = "mysqldump"')


def test_a_command_is_a_list_and_must_be_there() -> None:
    assert 'mode "command" needs a command' in _problems('mode = "command"')
    assert "database.command: should be a list" in _problems('mode = "command"\ncommand = "docker exec db pg_dump"')


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://immich:hunter2@localhost/immich",
        "postgresql://localhost/immich?user=immich&password=hunter2",
        "postgresql://localhost/immich?sslpassword=hunter2",
    ],
)
def test_a_password_in_the_address_is_refused_and_not_shown(url: str) -> None:
    said = _problems(f'url = "{url}"')
    assert "database.url: must not hold the password, which goes into database.password_file" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("url", ["mysql://localhost/immich", "host=localhost dbname=immich", "postgresql://[::1/x", ""])
def test_an_address_of_a_database_is_one(url: str) -> None:
    assert "database.url" in _problems(f'url = "{url}"')


@pytest.mark.parametrize(
    "url",
    [
        "localhost:2283",
        "ftp://localhost",
        "http://",
        "http://admin:x@localhost",
        "http://localhost:99999",
        "http://a?b",
    ],
)
def test_an_address_of_immich_is_one(url: str) -> None:
    assert "database.api_url: must be an address such as http://localhost:2283" in _problems(f'api_url = "{url}"')


def test_check_config_looks_for_what_a_fresh_dump_needs(
    tmp_path: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    for section, said in (
        (
            'mode = "command"\ncommand = ["no-such-docker", "exec"]',
            "!!  database.mode: the program no-such-docker is not",
        ),
        ('mode = "command"\ncommand = ["true"]', "ok  database.mode: the program true is there"),
        ('mode = "immich-api"\napi_key_file = "/none"', "!!  database.api_key_file: /none does not exist"),
    ):
        path.write_text(f'media_location = "{media}"\n[database]\n{section}\n')
        main(["check-config", str(path)])
        assert said in capsys.readouterr().out
