"""The documents say what the code says: options, codes, commands, events, links. Each table is compared, not trusted."""

from __future__ import annotations

import argparse
import ast
import gzip
import importlib
import json
import logging
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import immich_usb_backup
from immich_usb_backup import config, dbus_names
from immich_usb_backup.__main__ import COMMANDS, main
from immich_usb_backup.adapters import dbus_values
from immich_usb_backup.adapters.journal import PREFIX, journal_fields
from immich_usb_backup.adapters.polkit import Action
from immich_usb_backup.cli import plan
from immich_usb_backup.errors import BackupError
from immich_usb_backup.events import Event
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import BACKUP_FOLDER, TEMPORARY, NoticeKind, Outcome, Stage, Trigger
from immich_usb_backup.policy import library_findings
from immich_usb_backup.policy.disk_facts import DiskState
from immich_usb_backup.policy.marker import INNER_MARKER, MARKER_ENDINGS
from immich_usb_backup.policy.whole_plan import Steps, combine
from immich_usb_backup.requests import Refusal

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = CHECKOUT / "daemon/immich_usb_backup"
REFERENCE = CHECKOUT / "docs/reference"
HOW_TO = CHECKOUT / "docs/how-to"
PRIORITIES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "err"}

_FENCE = re.compile(r"^ *(```+)(\w*)\n(.*?)^ *\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def _documents() -> list[Path]:
    found = [CHECKOUT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "bench/README.md")]
    return found + sorted(path for folder in ("docs", "tests") for path in (CHECKOUT / folder).rglob("*.md"))


def _rows(text: str) -> Iterator[tuple[str, ...]]:
    """The cells of the tables' rows whose first cell is code."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield tuple(cell.strip() for cell in line.strip().strip("|").split(" | "))


def _code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def _section(text: str, title: str) -> str:
    """The text below a heading of the second level."""
    _, _, rest = text.partition(f"\n## {title}\n")
    assert rest, title
    return rest.partition("\n## ")[0]


def _python_files() -> Iterator[ast.Module]:
    for path in SOURCE.rglob("*.py"):
        yield ast.parse(path.read_text())


def _calls(name: str) -> Iterator[ast.Call]:
    for module in _python_files():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and name == getattr(node.func, "id", getattr(node.func, "attr", None)):
                yield node


# Configuration --------------------------------------------------------------------------------------------


def _options(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Each option with its dotted name, its schema, and whether it is required. A table whose names the user chooses is
    ``extra.NAME``, and a section in it ``disk.NAME.mode``."""
    for name, field in schema["properties"].items():
        if (chosen := field.get("additionalProperties")) is not None:
            name, field = f"{name}.NAME", chosen
        reference = next((part["$ref"] for part in (field, *field.get("anyOf", ())) if "$ref" in part), None)
        if reference is None:
            yield name, field, False
            continue
        section = schema["$defs"][reference.rpartition("/")[2]]
        for inner, inner_field in section["properties"].items():
            yield f"{name}.{inner}", _resolved(inner_field, schema), inner in section.get("required", ())


def _resolved(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in field:
        return {**schema["$defs"][field["$ref"].rpartition("/")[2]], **field}
    items = field.get("items", {})
    if "$ref" in items:
        return {**field, "items": schema["$defs"][items["$ref"].rpartition("/")[2]]}
    return field


def _kind(field: Mapping[str, Any]) -> str:
    """A type as the document words it."""
    if "anyOf" in field:
        return _kind(next(part for part in field["anyOf"] if part.get("type") != "null"))
    if "enum" in field:
        return ", ".join(f'`"{value}"`' for value in field["enum"])
    if field["type"] == "array":
        inner = _kind(field["items"])
        return f"list of {inner}s" if inner == "path" else f"list of {inner}"
    if field["type"] == "integer":
        limits = f"{field['minimum']} to {field['maximum']}" if "maximum" in field else f"{field['minimum']} and up"
        return f"whole number, {limits}"
    return "true or false" if field["type"] == "boolean" else "path" if field.get("format") == "path" else "text"


def _default(field: Mapping[str, Any], *, required: bool) -> str | None:
    """As the document words it; None where the default is a sentence."""
    if required:
        return "required"
    value = field.get("default")
    return None if value is None else f"`{json.dumps(value)}`"


def _with_limits(field: Mapping[str, Any]) -> Mapping[str, Any]:
    limits: Mapping[str, Any] = next((part for part in field.get("anyOf", ()) if part.get("type") == "integer"), {})
    return {**field, **limits} if limits else field


def test_every_option_is_documented_with_its_type_and_default() -> None:
    documented = {
        _code(name)[0]: (kind, default)
        for name, kind, default, _ in _rows((REFERENCE / "configuration.md").read_text())
    }
    schema = config.Config.model_json_schema(by_alias=True)
    expected = {
        name: (_kind(_with_limits(field)), _default(field, required=required))
        for name, field, required in _options(schema)
    }
    assert documented.keys() == expected.keys()
    for name, (kind, default) in expected.items():
        assert documented[name][0] == kind, name
        if default is None:
            assert not documented[name][1].startswith("`["), name
        else:
            assert documented[name][1] == default, name


def _toml_blocks() -> Iterator[tuple[Path, str]]:
    for path in _documents():
        for _, language, text in _FENCE.findall(path.read_text()):
            if language == "toml":
                yield path, re.sub("^  ", "", text, flags=re.MULTILINE)


def test_every_configuration_in_the_documents_is_a_right_one() -> None:
    blocks = list(_toml_blocks())
    assert len(blocks) > 5
    for path, text in blocks:
        config.parse(text.encode(), origin=path.name)


# Messages -------------------------------------------------------------------------------------------------


def _error_codes() -> set[str]:
    """Those of all errors, wherever in the package they are."""
    for module in pkgutil.walk_packages(immich_usb_backup.__path__, "immich_usb_backup."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return {kind.code for kind in _with_subclasses(BackupError) if kind.__module__.startswith("immich_usb_backup.")}


def _with_subclasses(kind: type[BackupError]) -> Iterator[type[BackupError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _with_subclasses(narrower)


def _finding_codes() -> set[str]:
    codes: set[str] = set()
    for call in _calls("Finding"):
        (value,) = (keyword.value for keyword in call.keywords if keyword.arg == "code")
        if isinstance(value, ast.Constant):
            codes.add(str(value.value))
        else:
            assert ast.unparse(value) in {"finding.code", "error.code", "code"}, "a code that this test cannot read"
    for module in _python_files():
        codes |= _codes_about_files(module)
    return codes


def _codes_about_files(module: ast.Module) -> set[str]:
    """The codes that are handed to ``about_files``, also by way of a function of this module that hands one on."""
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and _takes_a_code(node)]
    handing_on = {id(call): function.name for function in functions for call in _about_files(function, {"about_files"})}
    codes: set[str] = set()
    for call in _about_files(module, {"about_files", *handing_on.values()}):
        if id(call) in handing_on:
            assert ast.unparse(call.args[0]) == "code", "a code that this test cannot read"
        else:
            assert isinstance(call.args[0], ast.Constant), "a code that this test cannot read"
            codes.add(str(call.args[0].value))
    return codes


def _takes_a_code(function: ast.FunctionDef) -> bool:
    return bool(function.args.args) and function.args.args[0].arg == "code"


def _about_files(inside: ast.AST, names: set[str]) -> list[ast.Call]:
    nodes = [node for node in ast.walk(inside) if isinstance(node, ast.Call)]
    return [node for node in nodes if getattr(node.func, "id", getattr(node.func, "attr", None)) in names]


def test_every_code_is_explained() -> None:
    text = (REFERENCE / "messages.md").read_text()
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    documented = [_code(section)[0] for section in sections]
    assert len(documented) == len(set(documented))
    assert set(documented) == _error_codes() | _finding_codes()
    for section in sections:
        assert all(f"**{part}:**" in section for part in ("What happened", "The backup", "Do")), section


# Commands -------------------------------------------------------------------------------------------------


def _arguments(command: str) -> set[str]:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"immich_usb_backup.cli.{command.replace('-', '_')}").add_arguments(parser)
    return {name for action in parser._actions for name in action.option_strings or (action.dest,)}


def test_every_command_is_documented_with_its_options() -> None:
    text = (REFERENCE / "commands.md").read_text()
    documented = [_code(heading)[0] for heading in _HEADING.findall(text) if heading.startswith("`")]
    assert set(documented) == COMMANDS.keys()
    for command in documented:
        rows = _rows(_section(text, f"`{command}`"))
        assert {name for row in rows for name in _code(row[0])} == _arguments(command), command


def test_the_exit_codes_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong_usage:
        main(["nonsense"])
    real = {int(code) for code in ExitCode} | {wrong_usage.value.code}
    table = (REFERENCE / "exit-codes.md").read_text()
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == real


# Journal and D-Bus ----------------------------------------------------------------------------------------


def test_every_event_is_documented() -> None:
    table = _section((HOW_TO / "monitor-with-journalctl.md").read_text(), "Events")
    documented = [(_code(row[0])[0], _code(row[1])[0], row[2], _code(row[3])[0]) for row in _rows(table)]
    expected = [
        (event.code, event.kind.message_id, PRIORITIES[event.kind.level], event.kind.template) for event in Event
    ]
    assert documented == expected
    assert len({message_id for _, message_id, _, _ in expected}) == len(expected)


def _said() -> Iterable[str]:
    """The names of all fields that anything says, or binds to the context."""
    for name in ("say", "bound_contextvars"):
        for call in _calls(name):
            yield from (keyword.arg for keyword in call.keywords if keyword.arg is not None)
            together = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None]
            assert set(together) <= {"library_findings.counts(plan, steps)", "about"}, (
                "fields that this test cannot read"
            )
    yield from library_findings.counts(combine(()), Steps())
    yield from ("run", "disk", "channel")  # the notifier's ``about``
    yield "code"


def test_every_journal_field_is_documented() -> None:
    table = _section((HOW_TO / "monitor-with-journalctl.md").read_text(), "Fields")
    documented = {name for row in _rows(table) for name in _code(row[0])} - {"MESSAGE", "PRIORITY", "MESSAGE_ID"}
    real = {name for name in journal_fields(dict.fromkeys(_said(), "x")) if name.startswith(PREFIX)}
    assert documented == real


def test_the_bus_is_documented() -> None:
    text = (REFERENCE / "dbus.md").read_text()
    names = [value for name, value in vars(dbus_names).items() if name.isupper()]
    assert len(names) > 20
    assert [name for name in names if not any(f"{before}{name}" in text for before in "`/")] == []
    properties = [*dbus_values.MANAGER_PROPERTIES, *dbus_values.DISK_PROPERTIES, *dbus_values.RUN_PROPERTIES]
    assert [name for name in properties if f"`{name}`" not in _section(text, "Properties")] == []
    assert [name for name in (*NoticeKind, *DiskState, *Trigger, *Action) if f"`{name}`" not in text] == []
    errors_documented = {_code(row[0])[0].lstrip(".") for row in _rows(_section(text, "Methods")) if row[0][1] == "."}
    assert errors_documented == set(Refusal)
    for line, values in (("- `stage`:", Stage), ("- `outcome`:", Outcome), ("`code` of a category:", plan.WORDS)):
        sentence = text.partition(line)[2].partition(".")[0]
        assert set(_code(sentence)) == set(values), line


# Layout, marker -------------------------------------------------------------------------------------------


def test_the_names_on_the_disk() -> None:
    layout = (REFERENCE / "on-disk-layout.md").read_text()
    marker = (HOW_TO / "prepare-a-disk.md").read_text()
    assert all(name in layout for name in (f"{BACKUP_FOLDER}/", TEMPORARY, INNER_MARKER))
    assert all(name in marker for name in (f"`{BACKUP_FOLDER}`", INNER_MARKER, *MARKER_ENDINGS))


# Restoring ------------------------------------------------------------------------------------------------


def _renaming_program() -> str:
    blocks = [code for _, _, code in _FENCE.findall((HOW_TO / "restore-by-hand.md").read_text())]
    (block,) = (str(code) for code in blocks if "<<'END'" in code)
    return block.partition("<<'END'\n")[2].partition("\nEND\n")[0]


def _put_back(tmp_path: Path, *lines: object) -> None:
    """Run what the page says on a folder ``library`` that was copied back, and an extra one."""
    manifest = tmp_path / "manifest.jsonl.gz"
    text = "".join(
        json.dumps(line) + "\n" for line in ({"format": "immich-usb-backup manifest"}, *lines, {"end": True})
    )
    manifest.write_bytes(gzip.compress(text.encode()))
    places = (f"library={tmp_path / 'media/library'}", f"extra/pictures={tmp_path / 'pictures'}")
    command = [sys.executable, "-", str(manifest), *places]
    subprocess.run(command, input=_renaming_program().encode(), check=True, timeout=60)


def _files(folder: Path) -> dict[bytes, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {os.fsencode(path.relative_to(folder)): path.read_bytes() for path in found}


def _made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_what_the_page_on_restoring_says_gives_names_and_links_back(tmp_path: Path) -> None:
    library = _made(tmp_path / "media/library", "anna/Paris_~aa/12_30~bb.jpg", "anna/Paris_~aa/plain.jpg", "_t_~cc.jpg")
    pictures = _made(tmp_path / "pictures", "con_~dd.jpg", "found~.jpg")
    _put_back(
        tmp_path,
        {"folder": "extra"},
        {"folder": "extra/pictures"},
        ["con.jpg", 1, 2, None, None, "con_~dd.jpg"],
        ["found~~.jpg", 1, 2, None, None, "found~.jpg", None, True],
        {"folder": "library"},
        ["\udce9t\udce9.jpg", 1, 2, "a" * 40, 3, "_t_~cc.jpg"],
        {"folder": "library/anna"},
        {"folder": "library/anna/Paris: Mai", "stored": "library/anna/Paris_~aa"},
        ["12:30.jpg", 1, 2, None, None, "12_30~bb.jpg"],
        ["best", 0, 0, None, None, "", "../../best-of"],
        ["plain.jpg", 1, 2],
    )
    assert _files(library) == {
        b"anna/Paris: Mai/12:30.jpg": b"anna/Paris_~aa/12_30~bb.jpg",
        b"anna/Paris: Mai/plain.jpg": b"anna/Paris_~aa/plain.jpg",
        b"\xe9t\xe9.jpg": b"_t_~cc.jpg",
    }
    assert _files(pictures) == {b"con.jpg": b"con_~dd.jpg", b"found~.jpg": b"found~.jpg"}
    assert (library / "anna/Paris: Mai/best").readlink() == Path("../../best-of")


def test_what_the_page_on_restoring_says_replaces_nothing_and_stays_where_it_is_told(tmp_path: Path) -> None:
    """The disk may have been in other hands, and the page has root run this."""
    library = _made(tmp_path / "media/library", "12:30.jpg", "12_30~bb.jpg", "loop/x")
    outside = _made(tmp_path / "outside", "precious")
    _put_back(
        tmp_path,
        {"folder": "library"},
        ["12:30.jpg", 1, 2, None, None, "12_30~bb.jpg"],
        ["../../outside/new", 1, 2, None, None, "12_30~bb.jpg"],
        ["new", 1, 2, None, None, "../../outside/precious"],
        ["way", 0, 0, None, None, "", "../../outside"],
        {"folder": "library/../../outside"},
        ["new", 1, 2, None, None, "precious"],
        {"folder": "library/loop", "stored": "library/../../outside"},
        ["new", 1, 2, None, None, "precious"],
        {"folder": "library/way"},
        ["new", 1, 2, None, None, "precious"],
        {"folder": "elsewhere"},
        ["new", 1, 2, None, None, "precious"],
    )
    assert _files(outside) == {b"precious": b"precious"}
    assert _files(library) == {b"12:30.jpg": b"12:30.jpg", b"12_30~bb.jpg": b"12_30~bb.jpg", b"loop/x": b"loop/x"}


# Links ----------------------------------------------------------------------------------------------------


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", _documents(), ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    text = _FENCE.sub("", path.read_text())
    for link in _LINK.findall(text):
        place, _, anchor = link.partition("#")
        goal = (path.parent / place).resolve() if place else path
        assert goal.exists(), link
        assert goal.is_relative_to(CHECKOUT), link
        if anchor:
            headings = _HEADING.findall(_FENCE.sub("", goal.read_text()))
            assert anchor in map(_anchor, headings), link


def test_the_code_refers_to_documents_that_exist() -> None:
    named = {name for path in SOURCE.rglob("*.py") for name in re.findall(r"docs/[\w/.-]+\.md", path.read_text())}
    assert {name for name in named if not (CHECKOUT / name).exists()} <= {"docs/JOURNAL_NATIVE_PROTOCOL.md"}
