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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from tests.support.needs import cannot_run

from immich_usb_backup import config as configuration
from immich_usb_backup.config import Config
from immich_usb_backup.policy.hidden_paths import drop_in

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
    assert "InaccessiblePaths=-/tank/photos\n" in found["units"]["immich-usb-backup-notifier.service"]


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


def test_nothing_is_set_where_it_is_not_enabled() -> None:
    found = _evaluated({"enable": False}, IMMICH)
    assert not any(found[key] for key in ("units", "etc", "users", "polkit", "packages", "check"))


def test_a_rebuild_reloads_and_does_not_restart() -> None:
    found = _evaluated({"enable": True})
    assert found["reloads"] is True
    assert "kill -USR1 $MAINPID" in found["units"]["immich-usb-backup.service"]


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


def test_a_mistake_in_the_configuration_stops_the_build() -> None:
    check = _evaluated({"enable": True})["check"]
    assert re.match(r"\S+/bin/immich-usb-backup check-config --syntax-only \S+-immich-usb-backup.toml\n", check)


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
        ({"mailPasswordFile": "/nix/store/abc-password"}, f"{OURS}.mailPasswordFile"),
    ],
)
def test_what_is_wrong_is_refused_with_the_options_whole_name(settings: Mapping[str, Any], said: str) -> None:
    done = _evaluation({"enable": True, **settings})
    assert done.returncode != 0
    assert said in done.stderr


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
@pytest.mark.parametrize("settings", [{"enable": True}, EVERYTHING])
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
    assert _evaluated({"enable": True})["etc"] == [str(configuration.DEFAULT_PATH).removeprefix("/etc/")]
