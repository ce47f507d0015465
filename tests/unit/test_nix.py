"""The NixOS module on a stand-in for nixpkgs' lib and options (tests/nix): what it sets, refuses and documents.

The stand-in checks what its author believes NixOS is. ``IMMICH_USB_BACKUP_RENEW=1`` writes the golden units and
docs/nixos-options.md anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from tests.support.needs import cannot_run

from immich_usb_backup import config as configuration
from immich_usb_backup.cli.check_config import CREDENTIAL
from immich_usb_backup.config import Config
from immich_usb_backup.policy.hidden_paths import drop_in
from immich_usb_backup.policy.photo_walls import UNITS, hiding, to_hide

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "nix" / "golden"
OPTIONS_PAGE = ROOT / "docs" / "nixos-options.md"
SYSTEMD = ROOT / "systemd"
OURS = "services.immich-usb-backup"
IMMICH: Mapping[str, Any] = {"enable": True, "settings": {"server": {"externalDomain": "https://photos.example.org"}}}
EVERYTHING: Mapping[str, Any] = {
    "enable": True,
    "admins": ["alice"],
    "mailPasswordFile": "/run/secrets/mail",
    "immichApiKeyFile": "/run/secrets/key",
    "databasePasswordFile": "/run/secrets/database",
    "pingUrlFile": "/run/secrets/ping",
    "pushUrlsFile": "/run/secrets/push",
    "settings": {
        "media_location": "/srv/photos",
        "config_files": ["/etc/nixos"],
        "extra": {"pictures": "/mnt/Pictures"},
        "exclude": {"pictures": ["*.tmp"]},
        "disk": {"Blue": {"mode": "verify", "due_days": 14, "schedule": "daily 03:00"}},
        "freshness": {"due_days": 60},
        "metrics": {"textfile": "/var/lib/node-exporter/immich_usb_backup.prom"},
        "database": {"mode": "immich-api", "api_url": "http://localhost:2283"},
        "disks": {"transports": ["usb", "mmc"], "power_off": True, "trust": "enrolled", "on_battery": "run"},
        "verification": {"minutes": "unlimited"},
        "mail": {"host": "smtp.example.org", "to": ["me@example.org"], "from": "me@example.org"},
        "desktop": {"progress": False},
        "logging": {"level": "debug"},
    },
}


def _nix(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("nix-instantiate") is None:
        cannot_run("nix-instantiate is not installed")
    return subprocess.run(
        ["nix-instantiate", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def _evaluated(settings: Mapping[str, Any], immich: Mapping[str, Any] | None = None) -> Any:
    done = _evaluation(settings, immich)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _evaluation(
    settings: Mapping[str, Any], immich: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    values = json.dumps({"settings": settings, "immich": immich})
    text = f"import ./tests/nix/evaluate.nix (builtins.fromJSON {json.dumps(values).replace('${', chr(92) + '${')})"
    return _nix("--eval", "--strict", "--json", "-E", text)


def _without_null(value: Any) -> Any:
    """As the module writes it."""
    if isinstance(value, dict):
        inner = {key: _without_null(one) for key, one in value.items()}
        return {key: one for key, one in inner.items() if one is not None and (one != {} or key in {"ping", "push"})}
    return value


@pytest.mark.parametrize("file", ["nixos-module.nix", "package.nix", "flake.nix", "nixos/tests/plug-in.nix"])
def test_every_nix_file_can_be_parsed(file: str) -> None:
    done = _nix("--parse", file)
    assert done.returncode == 0, done.stderr


def test_enable_is_enough_where_immich_runs() -> None:
    found = _evaluated({"enable": True}, IMMICH)
    settings = Config.model_validate(_without_null(found["settings"]))
    assert settings.media_location == Path("/var/lib/immich")
    assert settings.database.mode == "pg_dump"
    assert settings.database.url == "postgresql:///immich?host=/run/postgresql"
    assert Path("/etc/nixos") in settings.config_files
    assert any("immich-settings" in str(path) for path in settings.config_files)
    assert "User=immich\n" in found["units"]["immich-usb-backup-dump.service"]


def test_another_media_location_of_immich_is_found() -> None:
    found = _evaluated({"enable": True}, {**IMMICH, "mediaLocation": "/tank/photos"})
    assert found["settings"]["media_location"] == "/tank/photos"
    assert 'InaccessiblePaths="-/tank/photos"\n' in found["units"]["immich-usb-backup-notifier.service"]


def test_a_dump_is_made_as_immich_itself_reaches_its_database() -> None:
    found = _evaluated({"enable": True}, {**IMMICH, "user": "photos", "database": {"user": "photos"}})
    assert "User=photos\n" in found["units"]["immich-usb-backup-dump.service"]
    assert "-postgresql/bin:" in found["units"]["immich-usb-backup-dump.service"]


def test_who_makes_the_dump_can_be_overridden_without_force() -> None:
    more = '{ systemd.services.immich-usb-backup-dump.serviceConfig.User = "backup"; }'
    arguments = f"{{ settings.enable = true; immich.enable = true; more = {more}; }}"
    done = _nix("--eval", "--strict", "--json", "-E", f"(import ./tests/nix/evaluate.nix {arguments}).units")
    assert done.returncode == 0, done.stderr
    assert "User=backup\n" in json.loads(done.stdout)["immich-usb-backup-dump.service"]


def test_a_database_that_wants_a_password_leaves_immichs_own_dumps() -> None:
    """By TCP nobody is let in without one: ``pg_dump`` would make every backup partial."""
    found = _evaluated({"enable": True}, {**IMMICH, "database": {"host": "127.0.0.1"}})
    assert Config.model_validate(_without_null(found["settings"])).database.mode == "latest"
    assert "User=" not in found["units"]["immich-usb-backup-dump.service"]


def test_it_works_where_immich_runs_in_docker() -> None:
    found = _evaluated({"enable": True})
    assert Config.model_validate(_without_null(found["settings"])) == Config(config_files=(Path("/etc/nixos"),))
    assert "User=" not in found["units"]["immich-usb-backup-dump.service"]


def test_what_immich_says_can_be_overridden() -> None:
    found = _evaluated(EVERYTHING, IMMICH)
    settings = Config.model_validate(_without_null(found["settings"]))
    assert settings.media_location == Path("/srv/photos")
    assert settings.database.mode == "immich-api"
    assert settings.disk["Blue"].mode == "verify"
    assert settings.mail is not None
    assert settings.ping is not None
    assert settings.push is not None
    assert found["admins"] == ["alice"]
    assert "User=" not in found["units"]["immich-usb-backup-dump.service"]


def test_what_the_daemon_needs_is_switched_on() -> None:
    found = _evaluated({"enable": True})
    assert found["on"] == [True, True, True]  # UDisks2, polkit, exFAT
    assert found["packages"] == ["immich-usb-backup"] * 4
    assert found["polkit"] == (SYSTEMD / "50-immich-usb-backup.rules").read_text()
    assert found["users"] == ["immich-usb-backup", "immich-usb-backup-dump", "immich-usb-backup-notify"]
    assert found["agent"] == ["graphical-session.target"]
    assert "WantedBy=timers.target" in found["units"]["immich-usb-backup-remind.timer"]


def test_the_generator_is_left_to_the_packages() -> None:
    """NixOS links the generators of ``systemd.packages``, and a second link of that name ends the build."""
    assert _evaluated({"enable": True})["generators"] == []


def test_a_machine_without_immich_is_asked_where_it_is() -> None:
    (warning,) = _evaluated({"enable": True})["warnings"]
    assert warning.startswith(f"{OURS}.settings.media_location is not set")
    assert _evaluated({"enable": True, "settings": {"media_location": "/var/lib/immich"}})["warnings"] == []


def test_a_media_location_that_is_taken_away_is_refused() -> None:
    done = _evaluation({"enable": True, "settings": {"media_location": None}}, IMMICH)
    assert done.returncode != 0
    assert f"{OURS}.settings.media_location is null" in done.stderr


def test_a_rebuild_warns_of_nothing() -> None:
    assert _evaluated({"enable": True}, IMMICH)["warnings"] == []
    assert _evaluated(EVERYTHING, IMMICH)["warnings"] == []


def test_nothing_is_set_where_it_is_not_enabled() -> None:
    found = _evaluated({"enable": False}, IMMICH)
    assert not any(found[key] for key in ("units", "etc", "users", "polkit", "packages", "check"))


def test_a_rebuild_reloads_and_does_not_restart() -> None:
    unit = _evaluated({"enable": True})["units"]["immich-usb-backup.service"]
    assert "X-ReloadIfChanged=true\n" in unit
    assert "X-Restart-Triggers=/nix/store/" in unit  # changes with the configuration
    assert "kill -USR1 $MAINPID" in unit


@pytest.mark.parametrize("name", ["dump", "check@", "repair@", "schedule@", "remind"])
def test_a_rebuild_stops_nothing_that_works_for_a_backup(name: str) -> None:
    """switch-to-configuration stops and starts every changed unit that runs, unless it is told otherwise."""
    assert "X-RestartIfChanged=false\n" in _evaluated({"enable": True})["units"][f"immich-usb-backup-{name}.service"]


def test_folders_in_homes_are_opened_to_the_service_and_no_others() -> None:
    """Escaped as the generator does it."""
    names = ["/home/alice/photos", '/root/50% "a:b"', "/home/back\\slash"]
    settings = {
        "media_location": names[0],
        "config_files": ["/etc/nixos", names[1]],
        "extra": {"x": names[2], "y": "/homes/y"},
    }
    unit = _evaluated({"enable": True, "settings": settings})["units"]["immich-usb-backup.service"]
    opened = [line for line in unit.splitlines() if line.startswith("BindReadOnlyPaths=")]
    assert sorted(opened) == drop_in(names).splitlines()[2:]


@pytest.mark.parametrize(
    "folders",
    [
        ["/"],
        ["/var/lib", "/nix", "/usr/x", "/run", "/etc"],
        ["/run/x", "/tank/photos", "/data/a b", "/opt", "/sysx", "/var/lib/docker"],
    ],
)
def test_photos_are_hidden_by_the_module_as_by_the_generator(folders: list[str]) -> None:
    """Somebody's extra folder may be all of /var/lib, in which the notifier has its state."""
    extra = {f"x{number}": folder for number, folder in enumerate(folders)}
    unit = _evaluated({"enable": True, "settings": {"extra": extra}})["units"]["immich-usb-backup-notifier.service"]
    lines = [line for line in unit.splitlines() if line.startswith("InaccessiblePaths=")]
    assert sorted(lines) == hiding(to_hide(folders, program="/nix/store/x")).splitlines()[2:]


def test_every_unit_that_the_generator_hides_photos_from_is_known() -> None:
    units = _evaluated(EVERYTHING)["units"]
    assert {name for name, text in units.items() if 'InaccessiblePaths="-/srv/photos"' in text} == set(UNITS)


HOSTILE: Mapping[str, Any] = {
    **EVERYTHING,
    "mailPasswordFile": "/run/secrets/50% mail",
    "settings": {
        **EVERYTHING["settings"],
        "media_location": '/srv/my "photos" $HOME %h',
        "extra": {"x": "/mnt/a:b; c\\", "y": "/home/it's #1"},
        "metrics": {"textfile": "/var/lib/node exporter%/x.prom"},
    },
}


def test_paths_with_any_characters_are_one_word_in_the_units() -> None:
    units = _evaluated(HOSTILE)["units"]
    assert r'InaccessiblePaths="-/srv/my \"photos\" $HOME %%h"' in units["immich-usb-backup-notifier.service"]
    assert r'InaccessiblePaths="-/mnt/a\:b; c\\"' in units["immich-usb-backup-notifier.service"]
    assert "LoadCredential=smtp-password:/run/secrets/50%% mail\n" in units["immich-usb-backup-notifier.service"]
    assert 'InaccessiblePaths="-/run/secrets/50%% mail"' in units["immich-usb-backup.service"]
    assert 'ReadWritePaths="-/var/lib/node exporter%%"' in units["immich-usb-backup.service"]


def _built(settings: Mapping[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """The derivation of the configuration, as a build runs it: the real program, and the file that the module writes."""
    text = _evaluated({"enable": True, "settings": settings})["check"]
    program, written = folder / "program", folder / "written.toml"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m immich_usb_backup "$@"\n')
    program.chmod(0o755)
    written.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    text = re.sub(r"\S+/bin/immich-usb-backup", str(program), text)
    text = re.sub(r"/nix/store/\S+-immich-usb-backup.toml", str(written), text)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "daemon"), "out": str(folder / "out")}
    # As stdenv: no home, the first failure ends it.
    environment["HOME"] = "/homeless-shelter"
    return subprocess.run(
        ["bash", "-e", "-c", text], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_mistake_in_the_configuration_stops_the_build(tmp_path: Path) -> None:
    done = _built({"keep_deleted_day": 7}, tmp_path)
    assert done.returncode != 0
    assert "did you mean keep_deleted_days?" in done.stdout
    assert not (tmp_path / "out").exists()


def test_paths_that_exist_on_the_machine_only_do_not_stop_the_build(tmp_path: Path) -> None:
    done = _built({"media_location": "/not/here/when/it/is/built"}, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == (tmp_path / "written.toml").read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"enabel": True}, "services.immich-usb-backup.enabel"),
        ({"settings": {"keep_deleted_days": "a month"}}, "settings.keep_deleted_days"),
        ({"settings": {"media_location": "srv/immich"}}, "settings.media_location"),
        ({"settings": {"database": {"mode": "dump"}}}, "settings.database.mode"),
        ({"settings": {"database": {"mode": "command"}}}, f"{OURS}.settings.database.command"),
        ({"settings": {"database": {"mode": "immich-api"}}}, f"{OURS}.immichApiKeyFile"),
        ({"settings": {"mail": {"host": "localhost"}}}, f"{OURS}.settings.mail.to"),
        ({"mailPasswordFile": "/nix/store/abc-password"}, f"{OURS}.mailPasswordFile must name a file outside of"),
        ({"pingUrlFile": "hunter2"}, f"{OURS}.pingUrlFile must name a file outside of"),
        ({"pushUrlsFile": "/run/a\nExecStartPre=x"}, f"{OURS}.pushUrlsFile must name a file outside of"),
        (
            {"settings": {"mail": {"password_file": "/nix/store/abc-password"}}},
            f"{OURS}.settings.mail.password_file is in the Nix store",
        ),
        ({"settings": {"ping": {"url_file": "/nix/store/abc"}}}, f"{OURS}.settings.ping.url_file is in the Nix store"),
        ({"settings": {"extra": {"x": "/a\nb"}}}, "settings.extra.x"),
        ({"settings": {"metrics": {"textfile": "/x.prom"}}}, f"{OURS}.settings.metrics.textfile"),
    ],
)
def test_what_is_wrong_is_refused_with_the_options_whole_name(settings: Mapping[str, Any], said: str) -> None:
    done = _evaluation({"enable": True, **settings})
    assert done.returncode != 0
    assert said in done.stderr


def test_a_secret_itself_is_not_shown_where_it_is_refused() -> None:
    assert "hunter2" not in _evaluation({"enable": True, "mailPasswordFile": "hunter2"}).stderr


def test_a_path_that_would_be_copied_into_the_store_is_refused_with_a_way_out() -> None:
    settings = "{ enable = true; mailPasswordFile = ./README.md; }"
    done = _nix("--eval", "--strict", "-E", f"(import ./tests/nix/evaluate.nix {{ settings = {settings}; }}).units")
    assert done.returncode != 0
    assert f"{OURS}.mailPasswordFile must name a file outside of the Nix store" in done.stderr
    assert '"/run/secrets/...' in done.stderr


def test_the_commands_find_the_secrets_where_they_look_for_them() -> None:
    """``doctor`` and ``check-config`` look in /etc/immich-usb-backup."""
    etc = _evaluated(EVERYTHING)["etc"]
    assert etc[str(CREDENTIAL).removeprefix("/etc/")] == "/run/secrets/mail"
    assert len(etc) == 6


# Options --------------------------------------------------------------------------------------------------


def _known(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every option of the configuration, as a path."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = next(_models(field.annotation), None)
        if inner is None:
            yield path
        else:
            yield from _known(inner, f"{path}.<name>." if path == "disk" else f"{path}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def test_every_option_of_the_configuration_is_an_option_of_the_module() -> None:
    paths = {option["path"] for option in _evaluated({"enable": True})["options"]}
    assert {f"settings.{path}" for path in _known(Config)} <= paths


ALL_SETTINGS: Mapping[str, Any] = {
    "media_location": "/srv/photos",
    "config_files": ["/etc/nixos"],
    "keep_config_files": 5,
    "keep_deleted_days": 0,
    "extra": {"pictures": "/mnt/Pictures"},
    "exclude": {"pictures": ["*.tmp"]},
    "deletions": {"hold_percent": 0, "hold_files": 0},
    "disk": {"Blue": {"mode": "full", "due_days": 0, "schedule": "daily 03:00"}},
    "freshness": {"due_days": 0, "remind": False},
    "database": {
        "dumps": "/srv/dumps",
        "keep": 1,
        "warn_after_hours": 0,
        "mode": "command",
        "fresh_minutes": 1,
        "url": "postgresql:///photos",
        "password_file": "/run/secrets/database",
        "api_url": "http://localhost:2283",
        "api_key_file": "/run/secrets/key",
        "command": ["/run/current-system/sw/bin/true", "$HOME %h"],
    },
    "disks": {
        "transports": ["usb", "mmc", "loop"],
        "trust": "enrolled",
        "automounter_grace_seconds": 0,
        "power_off": True,
        "check_file_system": "never",
        "walk_after_days": 0,
        "reserve_megabytes": 0,
        "on_battery": "skip",
    },
    "verification": {"read_back": False, "minutes": "unlimited", "again_after_days": 0},
    "mail": {
        "host": "localhost",
        "port": 25,
        "security": "none",
        "username": "me",
        "password_file": "/run/secrets/mail",
        "ca_file": "/etc/ssl/certs/mine.pem",
        "from": "me@example.org",
        "to": ["me@example.org"],
        "on": ["ok", "partial", "failed", "interrupted"],
    },
    "ping": {"url_file": "/run/secrets/ping"},
    "push": {"urls_file": "/run/secrets/push", "on": ["failed"]},
    "metrics": {"textfile": "/var/lib/node-exporter/x.prom"},
    "desktop": {"on": ["failed"], "progress": False, "group": "wheel"},
    "logging": {"level": "debug"},
}


def test_the_module_takes_every_option_as_the_program_does() -> None:
    found = _evaluated({"enable": True, "settings": ALL_SETTINGS}, IMMICH)["settings"]
    kept = _without_null(found)
    assert kept == ALL_SETTINGS
    Config.model_validate(kept)
    left_out = {path for path in _known(Config) if not _is_set(kept, path.replace("<name>", "Blue").split("."))}
    assert left_out == {"ping.url"}  # goes with no url_file


def _is_set(value: Any, path: list[str]) -> bool:
    return not path or (path[0] in value and _is_set(value[path[0]], path[1:]))


def test_the_module_knows_no_option_that_the_configuration_does_not() -> None:
    known = {f"settings.{path}" for path in _known(Config)}
    sections = {path.rpartition(".")[0].removesuffix(".<name>") for path in known}
    paths = {option["path"] for option in _evaluated({"enable": True})["options"]}
    assert {path for path in paths if path.startswith("settings.")} <= known | sections


def test_every_option_has_a_description() -> None:
    bare = [option["path"] for option in _evaluated({"enable": True})["options"] if not option["description"]]
    assert bare == []


def _page(options: list[dict[str, str]]) -> str:
    lines = [
        "# Options of the NixOS module",
        "",
        f"Everything below `{OURS}`. Written by `tests/unit/test_nix.py` from the module itself; what each option of",
        "`settings` means in full, and the program's defaults, is in [configuration](reference/configuration.md).",
        "",
        "| option | type | default | meaning |",
        "|---|---|---|---|",
    ]
    cell = "| `{path}` | {type} | {default} | {description} |"
    shown = ({**one, "default": one["default"] and f"`{one['default'].replace('`', '')}`"} for one in options)
    return "\n".join([*lines, *(cell.format(**one) for one in shown), ""])


def test_the_page_of_options_is_fresh() -> None:
    page = _page(_evaluated({"enable": True})["options"])
    _same(OPTIONS_PAGE, page)


# Package and flake ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packaged() -> Any:
    done = _nix("--eval", "--strict", "--json", "-E", "import ./tests/nix/package.nix")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _names(requirements: list[str]) -> set[str]:
    return {re.split("[<>=]", one)[0] for one in requirements}


def test_the_package_has_the_version_and_the_dependencies_of_the_project(
    packaged: Any, project: dict[str, Any]
) -> None:
    known, package = project["project"], packaged["plain"]
    assert (package["pname"], package["version"]) == (known["name"], known["version"])
    assert set(package["dependencies"]) == _names(known["dependencies"])
    assert set(packaged["push"]) == _names(known["dependencies"] + known["optional-dependencies"]["push"])
    assert set(package["build-system"]) == _names(project["build-system"]["requires"])
    assert package["meta"]["mainProgram"] in known["scripts"]


def test_the_package_is_built_from_all_that_a_wheel_is_made_of(packaged: Any, project: dict[str, Any]) -> None:
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = [*wheel["packages"], *wheel["force-include"], project["project"]["readme"], "pyproject.toml"]
    sources = [Path(one) for one in packaged["plain"]["src"]]
    assert all(source.exists() for source in sources)
    assert [one for one in wanted if not any((ROOT / one).is_relative_to(source) for source in sources)] == []


def test_the_flake_has_package_module_and_checks_for_each_system(packaged: Any) -> None:
    systems = {"x86_64-linux", "aarch64-linux"}
    assert packaged["module"] == str(ROOT / "nixos-module.nix")
    assert packaged["packages"] == dict.fromkeys(systems, str(ROOT / "package.nix"))
    assert set(packaged["checks"]) == systems
    assert packaged["checks"]["aarch64-linux"]["plug-in"] == str(ROOT / "nixos/tests/plug-in.nix")


# Units ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "everything"])
def test_the_units_are_as_they_were(name: str) -> None:
    settings, immich = (EVERYTHING, None) if name == "everything" else ({"enable": True}, IMMICH)
    for unit, text in _evaluated(settings, immich)["units"].items():
        _same(GOLDEN / name / f"{unit}.txt", text)


def _same(path: Path, text: str) -> None:
    if os.environ.get("IMMICH_USB_BACKUP_RENEW"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path.relative_to(ROOT)} is missing: see this file's docstring"
    assert path.read_text() == text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("settings", [{"enable": True}, EVERYTHING, HOSTILE])
def test_systemd_takes_the_units_with_what_the_module_adds(settings: Mapping[str, Any], tmp_path: Path) -> None:
    for source in SYSTEMD.glob("immich-usb-backup*.*"):
        if source.suffix in {".service", ".path", ".timer"}:
            (tmp_path / source.name).write_text(_runnable(source.read_text()))
    units = _evaluated(settings, IMMICH)["units"]
    for unit, text in units.items():
        folder = tmp_path / f"{unit}.d"
        folder.mkdir()
        (folder / "overrides.conf").write_text(_runnable(text))
    names = [unit.replace("@.", "@sdb1.") for unit in units]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def _runnable(text: str) -> str:
    """With programs that exist here."""
    return re.sub(
        r"/nix/store/\S*/bin/kill", "/bin/true", text.replace("/usr/local/bin/immich-usb-backup", "/bin/true")
    )


def test_the_rule_runs_no_program_by_a_path_that_nixos_refuses() -> None:
    rules = (ROOT / "udev-rules" / "90-immich-usb-backup.rules").read_text()
    assert not re.search(r"/(usr/)?s?bin/", rules)


def test_the_configurations_path_is_the_one_that_the_program_reads() -> None:
    assert list(_evaluated({"enable": True})["etc"]) == [str(configuration.DEFAULT_PATH).removeprefix("/etc/")]


def test_the_test_in_a_virtual_machine_can_be_evaluated_and_its_script_compiles() -> None:
    done = _nix("--eval", "--strict", "--json", "-E", "import ./tests/nix/vm.nix")
    assert done.returncode == 0, done.stderr
    test = json.loads(done.stdout)
    Config.model_validate(_without_null(test["settings"]))
    changed = test["changed"]["services"]["immich-usb-backup"]["settings"]
    Config.model_validate(_without_null({**test["settings"], **changed}))
    compile(test["testScript"], "testScript", "exec")
