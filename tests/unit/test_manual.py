"""The manual pages: whole, and without a complaint of those who show them."""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import manual
from tests.support.needs import cannot_run
from tests.unit.test_docs import REFERENCE, _code, _rows

from immich_usb_backup.__main__ import COMMANDS
from immich_usb_backup.exit_codes import ExitCode

DAY = "2026-11-21"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Made as scripts/install does: with nothing but Python."""
    folder = tmp_path_factory.mktemp("man")
    program = [sys.executable, "-I", "-S", str(Path(manual.__file__)), str(folder), "--date", DAY]
    subprocess.run(program, check=True, capture_output=True, timeout=60)
    return {path.name: path for path in folder.rglob("*.?")}


def _shown(path: Path) -> str:
    """As a person reads it, in one very wide line a paragraph."""
    if shutil.which("mandoc") is None:
        cannot_run("mandoc is not installed")
    command = ["mandoc", "-Tutf8", "-O", "width=1000", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return re.sub(".\x08", "", done.stdout)


def _section(text: str, title: str, indent: str = "") -> str:
    found = re.search(rf"(?ms)^{indent}{re.escape(title)}$(.*?)(?=^{indent}\S|\Z)", text)
    assert found, title
    return found[1]


def test_both_pages_are_made(pages: dict[str, Path]) -> None:
    assert set(pages) == {"immich-usb-backup.1", "immich-usb-backup.toml.5"}


@pytest.mark.parametrize("name", ["immich-usb-backup.1", "immich-usb-backup.toml.5"])
def test_mandoc_and_groff_have_nothing_to_complain_of(name: str, pages: dict[str, Path]) -> None:
    for command in (
        ["mandoc", "-Tlint", "-W", "style", str(pages[name])],
        ["man", "--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(pages[name])],
    ):
        if shutil.which(command[0]) is None:
            cannot_run(f"{command[0]} is not installed")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        said = done.stdout if command[0] == "mandoc" else done.stderr
        assert said.replace(f"mandoc: {pages[name]}: ", "") == ""


def _options(command: str) -> set[str]:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"immich_usb_backup.cli.{command.replace('-', '_')}").add_arguments(parser)
    return {name for action in parser._actions for name in action.option_strings or (action.dest,)}


def test_every_command_and_its_options_are_in_it(pages: dict[str, Path]) -> None:
    text = _section(_shown(pages["immich-usb-backup.1"]), "COMMANDS")
    for command in COMMANDS:
        section = _section(text, command, "   ")
        terms = set(re.findall(r"(?<![\w-])[\w-]+", "\n".join(re.findall(r"(?m)^ {7}(\S.*)$", section))))
        assert _options(command) <= terms, command


def test_every_option_of_the_configuration_is_in_it(pages: dict[str, Path]) -> None:
    text = _shown(pages["immich-usb-backup.toml.5"])
    names = [_code(row[0])[0] for row in _rows((REFERENCE / "configuration.md").read_text())]
    assert len(names) > 40
    assert [name for name in names if not re.search(rf"(?m)^ {{7}}{re.escape(name)}\b", text)] == []


def test_every_exit_code_is_in_it(pages: dict[str, Path]) -> None:
    text = _section(_shown(pages["immich-usb-backup.1"]), "EXIT STATUS")
    assert {int(code) for code in re.findall(r"(?m)^ {7}(\d+) ", text)} == {*map(int, ExitCode), 2}


def test_nothing_of_the_markdown_is_left(pages: dict[str, Path]) -> None:
    for path in pages.values():
        text = "\n".join(line for line in _shown(path).splitlines() if not line.startswith(" " * 11))
        assert not re.search(r"\]\(|```|\*\*|^ *\|", text, re.MULTILINE), path.name
