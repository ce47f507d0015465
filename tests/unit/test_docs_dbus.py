"""docs/reference/dbus.md has the methods as they are, and calls them as they want to be called."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from immich_usb_backup import dbus_names
from immich_usb_backup.adapters.dbus_methods import Asking
from immich_usb_backup.adapters.dbus_tree import Method

PAGE = (Path(__file__).resolve().parents[2] / "docs/reference/dbus.md").read_text()
FREE = {
    dbus_names.GET_STATE: ("", "a{sv}"),
    dbus_names.GET_DISKS: ("", "aa{sv}"),
    dbus_names.GET_HISTORY: ("sub", "aa{sv}"),
}
"""Those that need nobody's leave; tests/integration/test_dbus_interface.py calls them."""


def _signatures(methods: Mapping[str, Method]) -> dict[str, tuple[str, str]]:
    return {name: (method.takes.signature, method.gives.signature) for name, method in methods.items()}


def _asking() -> Asking:
    unused = cast("Any", None)
    return Asking(bus=unused, requests=unused, guard=unused, current_file=unused, going=unused)


def _written(code: str) -> tuple[str, tuple[str, str]]:
    """``Name(s one, b two) → s`` as the name and both signatures."""
    match = re.fullmatch(r"(\w+)\(([^)]*)\) → (\S+)", code)
    assert match, code
    takes = "".join(part.split()[0] for part in match[2].split(", ") if part)
    return match[1], (takes, match[3])


def test_the_managers_methods_are_as_they_are_documented() -> None:
    rows = re.findall(r"^\| `(\w+\([^`]*)` \|", PAGE, re.MULTILINE)
    assert dict(map(_written, rows)) == FREE | _signatures(_asking().of_manager())


def test_the_methods_of_disks_and_runs_are_as_they_are_documented() -> None:
    (sentence,) = re.findall(r"^A disk has (`.*?): the same for that disk or run", PAGE, re.MULTILINE | re.DOTALL)
    disk, _, run = sentence.partition("a run")
    found = [dict(map(_written, re.findall(r"`([^`]+)`", part))) for part in (disk, run)]
    assert found == [_signatures(_asking().of_disk()), _signatures(_asking().of_run())]


def test_every_call_to_type_has_the_arguments_that_the_method_takes() -> None:
    asking = _asking()
    known = {
        "Manager": FREE | _signatures(asking.of_manager()),
        "Disk": _signatures(asking.of_disk()),
        "Run": _signatures(asking.of_run()),
    }
    calls = re.findall(r"busctl[^|\n]* call \$name \S+ \$name\.(\w+) (\w+)([^|\n]*)\|?\n(?!Call failed)", PAGE)
    assert len(calls) > 4
    for interface, method, rest in calls:
        signature, *values = shlex.split(rest) or [""]
        assert signature == known[interface][method][0], method
        assert len(values) == len(signature), method
