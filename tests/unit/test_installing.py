"""Installing what a system needs beside the program: one list of files, every change said, nothing done that is not asked for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from immich_usb_backup.__main__ import main
from immich_usb_backup.cli import install_system
from immich_usb_backup.installing import machine, system
from immich_usb_backup.installing.machine import CannotInstall, Machine
from immich_usb_backup.installing.places import PLACES, PROGRAM, system_files, system_folder, unplaced
from immich_usb_backup.installing.system import System, stage

ROOT = Path(__file__).parents[2]
HERE = Path("/usr/bin/env")
"""A program that services can run."""


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def dry(said: list[str]) -> System:
    return System(Machine(dry_run=True, say=said.append), HERE)


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    stage(tmp_path / "usr", "/nix/store/x/bin/immich-usb-backup")
    return tmp_path / "usr"


def test_every_file_of_the_checkout_has_a_place() -> None:
    assert list(unplaced(ROOT)) == []
    assert {file.place for file in system_files(ROOT)} == set(PLACES)


def test_a_checkout_is_found_where_no_wheel_brought_the_files() -> None:
    assert system_folder() == ROOT


def test_users_come_first_and_the_leave_to_start_units_after_the_units() -> None:
    places = [str(file.admin) for file in system_files(ROOT)]
    assert places[0] == "/etc/sysusers.d/immich-usb-backup.conf"
    rule = places.index("/etc/polkit-1/rules.d/50-immich-usb-backup.rules")
    assert all(place.endswith(".service") <= (index < rule) for index, place in enumerate(places))


def test_no_two_files_go_to_one_place() -> None:
    files = system_files(ROOT)
    assert len({file.admin for file in files}) == len({file.package for file in files}) == len(files)


def test_a_package_names_its_own_program(staged: Path) -> None:
    texts = {path.name: path.read_text() for path in staged.rglob("*") if path.is_file()}
    assert not [name for name, text in texts.items() if PROGRAM in text and name != "immich-usb-backup.1"]
    assert "ExecStart=/nix/store/x/bin/immich-usb-backup daemon\n" in texts["immich-usb-backup.service"]


def test_a_package_has_generators_that_can_be_run_and_nothing_else_that_can(staged: Path) -> None:
    runnable = {path.parent.name for path in staged.rglob("*") if path.is_file() and os.access(path, os.X_OK)}
    assert runnable == {"system-generators"}


def test_a_package_has_manual_pages(staged: Path) -> None:
    assert (staged / "share/man/man1/immich-usb-backup.1").read_text().startswith(".TH")


def test_installing_twice_writes_once(tmp_path: Path, said: list[str]) -> None:
    target = tmp_path / "etc/some.conf"
    for _ in range(2):
        Machine(dry_run=False, say=said.append).write(target, b"x = 1\n")
    assert said == [f"Writing {target}", f"{target} is up to date"]
    assert target.read_bytes() == b"x = 1\n"


def test_a_dry_run_names_every_file_and_writes_none(dry: System, said: list[str]) -> None:
    assert dry.install() == 0
    wanted = {str(file.admin) for file in system_files(ROOT)}
    assert {line.removeprefix("Writing ").removesuffix(" is up to date") for line in said} >= wanted
    assert not any(
        file.admin.exists() for file in system_files(ROOT) if "immich" in file.name and "sysusers" in str(file.admin)
    )


def test_nothing_is_changed_under_a_backup(dry: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "running_backup", lambda: "'Blue': copying photos, 41 %")
    for change in (dry.refuse_while_running, lambda: dry.uninstall(purge=False)):
        with pytest.raises(CannotInstall, match="A backup is running: 'Blue': copying photos, 41 %") as refused:
            change()
        assert refused.value.exit_code == 75


@pytest.mark.parametrize(
    ("says", "running"),
    [
        ("ActiveState=active\nStatusText='Blue': copying photos\n", "'Blue': copying photos"),
        ("ActiveState=active\nStatusText=Idle: waiting\n", ""),
        ("ActiveState=deactivating\nStatusText='Blue': copying photos\n", "'Blue': copying photos"),
        ("ActiveState=inactive\nStatusText='Blue': copying photos\n", ""),
        ("ActiveState=active\nStatusText=\n", ""),
        ("", ""),
    ],
)
def test_a_backup_is_seen_by_the_services_status(
    says: str, running: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\nprintf %s "{says}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine.running_backup() == running


def test_a_program_in_a_home_is_refused_with_a_way_out(said: list[str]) -> None:
    with pytest.raises(CannotInstall, match="lies in somebody's home") as refused:
        System(Machine(dry_run=True, say=said.append), Path("/root/.local/bin/immich-usb-backup")).check()
    assert "PIPX_HOME=/opt/pipx" in refused.value.hint
    assert said == []


@pytest.mark.parametrize("options", [["--dry-run"], ["--check"], ["--uninstall", "--dry-run"]])
def test_a_package_is_told_that_it_is_one(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without files of its own it would take what lies beside it, such as systemd's own in /usr/lib/systemd."""
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd/systemd-network-generator").touch()
    monkeypatch.setattr(system, "system_folder", lambda: tmp_path)
    parser = ArgumentParser()
    install_system.add_arguments(parser)
    assert install_system.run(parser.parse_args(options)) == 69
    said = capsys.readouterr()
    assert said.out == ""
    assert "came in a package" in said.err
    assert "sudo apt remove immich-usb-backup" in said.err


def test_nothing_is_installed_beside_a_package(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = tmp_path / "immich-usb-backup.service"
    unit.touch()
    monkeypatch.setattr(system, "_PACKAGED", (tmp_path / "none.service", unit))
    with pytest.raises(CannotInstall, match="A package is installed already") as refused:
        System(Machine(dry_run=False, say=said.append), HERE).check()
    assert "sudo apt remove immich-usb-backup" in refused.value.hint
    assert said == []


def test_a_program_behind_a_closed_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert "cannot be read by other users" in machine.hidden_from_services(tmp_path / "bin" / "immich-usb-backup")


def test_a_program_that_everybody_can_run_is_fine() -> None:
    assert machine.hidden_from_services(HERE) == ""


def test_the_command_needs_no_package_but_python() -> None:
    code = "import sys; from immich_usb_backup.cli import install_system; print(*(m for m in sys.modules if m[:8] == 'pydantic'))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "daemon")},
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("options", [[], ["--uninstall", "--purge"], ["--check"]])
def test_on_nixos_the_module_is_named_and_nothing_is_changed(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "NIXOS", tmp_path)
    assert main(["install-system", "--dry-run", *options]) == 69
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "services.immich-usb-backup.enable = true" in shown.err


def test_purge_alone_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    install_system.add_arguments(parser)
    assert install_system.run(parser.parse_args(["--purge"])) == 2
    assert "--uninstall" in capsys.readouterr().err


def test_the_wheel_brings_what_is_installed() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    brought = re.findall(r'^"([^"]+)" = "immich_usb_backup/system/\1"$', project, re.MULTILINE)
    folders = {file.source.relative_to(ROOT).parts[0] for file in system_files(ROOT)}
    assert {*folders, "docs/reference", "scripts/manual.py"} == set(brought)
