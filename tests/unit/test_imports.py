"""Imports point down. The house's rule, held by reading every import."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import immich_usb_backup

NAME = "immich_usb_backup"
PACKAGE = Path(immich_usb_backup.__file__).parent
BASE = frozenset({"model", "errors", "events", "config", "exit_codes", "dbus_names", "__init__"})
POLICY = BASE | {"policy", "messages", "ports"}
STAGES = POLICY | {"stages", "marker_look", "release", "protect"}
RUN = STAGES | {"announce", "first_look", "trust_look", "enrolling", "run", "recovery", "notices", "reminding"}
DAEMON = {"disks_here", "dry_run", "asked", "overview", "worker", "mains"}
REQUESTS = POLICY | {"requests", "jobs"}
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    "config": BASE
    | {"policy"},  # only policy.exclude, which imports nothing of ours: patterns are checked as they are read
    **dict.fromkeys(("policy", "messages", "ports"), POLICY),
    "protect": BASE,
    **dict.fromkeys(("stages", "marker_look", "release"), STAGES),
    **dict.fromkeys(
        ("announce", "first_look", "trust_look", "enrolling", "run", "recovery", "notices", "reminding"), RUN
    ),
    **dict.fromkeys(("notifier", "dry_run"), RUN),
    "agent": RUN | {"agent"},
    **dict.fromkeys(("requests", "jobs", "disks_here"), REQUESTS),
    **dict.fromkeys(("daemon", "asked", "worker", "overview", "mains"), RUN | REQUESTS | DAEMON),
    "adapters": POLICY | {"adapters", "protect", "requests"},
    "restore": POLICY | {"restore", "adapters"},  # a command in the foreground, on this machine's files alone: no ports
    "installing": BASE | {"installing"},  # a command for whoever installs: nothing but Python may be there
    "dump_making": POLICY | {"dump_making", "adapters"},  # a process of its own, too
    "doctor": POLICY | {"doctor", "adapters"},  # a command in the foreground, which only looks
    **dict.fromkeys(
        ("cli", "__main__"),
        RUN
        | REQUESTS
        | {"cli", "adapters", "daemon", "notifier", "agent", "restore", "dump_making", "installing", "doctor"},
    ),
}
ONLY_IN = {
    "apprise": {"adapters/push.py"},
    "dbus_next": {"adapters/bus.py"},
    "pyudev": {"adapters/udev.py"},
    "sdnotify": {"adapters/service.py"},
    "smtplib": {"adapters/mail.py"},
    "sqlite3": {
        *("adapters/history.py", "adapters/manifest.py", "adapters/manifest_tables.py", "adapters/manifest_proofs.py"),
        *("adapters/manifest_temporary.py", "adapters/asset_book.py", "adapters/placing.py"),
    },
    "structlog": {"adapters/journal.py", "run.py"},
}
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            base = node.module or ""
            yield from (f"{base}.{alias.name}" if base == NAME else base for alias in node.names)


def _room(dotted: str) -> str:
    """`immich_usb_backup.policy.text` is in `policy`; a name of the package itself is in `__init__`."""
    part = dotted.removeprefix(NAME).strip(".").split(".")[0]
    return part if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").exists() else "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    room = module.split("/")[0].removesuffix(".py")
    ours = {_room(name) for name in _imports(module) if name.split(".")[0] == NAME}
    assert ours <= ALLOWED[room], f"{module} must not import {ours - ALLOWED[room]}"


@pytest.mark.parametrize("module", MODULES)
def test_outside_libraries_have_one_door(module: str) -> None:
    names = {name.split(".")[0] for name in _imports(module)}
    assert {name for name in names & ONLY_IN.keys() if module not in ONLY_IN[name]} == set()
    known = {*ONLY_IN, "pydantic", "pydantic_core", NAME, *sys.stdlib_module_names}
    assert names <= known


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("policy/")])
def test_policy_touches_nothing(module: str) -> None:
    names = {name.split(".")[0] for name in _imports(module)}
    assert not names & {"os", "asyncio", "pathlib", "subprocess", "socket", "time", "threading", "random", "secrets"}
