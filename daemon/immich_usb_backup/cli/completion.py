"""``immich-usb-backup completion``: what a shell may offer for the word that is being typed.

The files in ``completions/`` run it at the tab key. It prints ``files``, or ``words`` and below it one line for each word, a
tab, and what it is. What is offered comes from the commands' own parsers, and from the service where a disk or run is meant.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from immich_usb_backup import dbus_names
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.text import printable
from immich_usb_backup.policy.typing_ahead import Word, disks, matching, runs

_LONGEST_HELP = 70
_ANSWER_SECONDS = 1.0
_RUNS = 20
_MANAGER = (dbus_names.BUS_NAME, dbus_names.OBJECT_PATH, dbus_names.MANAGER)
_FILES = {"DEVICE", "FILE", "FOLDER"}
"""Words for an argument that is one."""
_EVERYWHERE = [Word("--help", "show what it does and its options")]
_FIRST = [*_EVERYWHERE, Word("--version", "show the version")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("what", choices=["words"], help="what to print")
    parser.add_argument("typed", nargs=argparse.REMAINDER, help="the line after the program's name, to the word begun")


def run(arguments: argparse.Namespace) -> int:
    """Print the words. Nothing where none fits: a shell at the tab key can show no errors."""
    typed = _joined(arguments.typed or [""])
    found = _offered(arguments.commands, typed)
    print("files" if found is None else "words")
    for word in matching(found or (), typed[-1]):
        print(f"{word.text}\t{printable(word.help)[:_LONGEST_HELP]}")
    return ExitCode.OK


def _joined(typed: Sequence[str]) -> list[str]:
    """Bash takes ``--mode=full`` for three words: what belongs to an option is a word of its own here."""
    words = [word for word in typed if word != "="]
    return [*words, ""] if typed[-1] == "=" else words


def _offered(commands: Mapping[str, str], typed: Sequence[str]) -> list[Word] | None:
    """None: any file."""
    command = next((word for word in typed[:-1] if not word.startswith("-")), None)
    if command is None:
        return _FIRST if typed[-1].startswith("-") else _commands(commands, begun=bool(typed[-1]))
    if command not in commands:
        return []
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"immich_usb_backup.cli.{command.replace('-', '_')}").add_arguments(parser)
    return _after(parser, typed[typed.index(command) + 1 :])


def _commands(commands: Mapping[str, str], *, begun: bool) -> list[Word]:
    """Those that systemd runs only where somebody begins to type them."""
    return [Word(name, text) for name, text in commands.items() if begun or not text.endswith("this)")]


def _after(parser: argparse.ArgumentParser, typed: Sequence[str]) -> list[Word] | None:
    actions = parser._actions  # noqa: SLF001  # argparse has no other way to look at a parser
    options = {name: action for action in actions for name in action.option_strings}
    places = [action for action in actions if not action.option_strings]
    wanted: argparse.Action | None = None
    for word in typed[:-1]:
        if wanted is not None:
            wanted = None
        elif word in options:
            wanted = options[word] if options[word].nargs != 0 else None
        elif not word.startswith("-") and places and places[0].nargs not in {"*", "+"}:
            places.pop(0)
    last = typed[-1]
    if wanted is None and last.startswith("-"):
        option, equals, _ = last.partition("=")
        if not equals:
            return [*_EVERYWHERE, *(Word(name, _help(action)) for name, action in options.items())]
        wanted = options.get(option)
    return _values(wanted or (places[0] if places else None))


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%(default)s", str(action.default))


def _values(action: argparse.Action | None) -> list[Word] | None:
    """What an argument can be: one of its choices, a disk, a run, or a file; else nothing that could be known."""
    if action is None:
        return []
    if action.choices is not None:
        return [Word(str(choice)) for choice in action.choices]
    meant = str(action.metavar or action.dest).upper()
    if meant == "DISK":
        return disks(_ask(dbus_names.GET_DISKS, "", []))
    if meant == "RUN":
        return runs(_ask(dbus_names.GET_HISTORY, "sub", ["", _RUNS, False]))
    return None if action.type is Path or _FILES & set(meant.split("_")) else []


def _ask(member: str, signature: str, body: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    """The service's list, or an empty one where it does not answer within a second."""
    from immich_usb_backup.errors import BackupError  # with the bus, most of what there is to load

    try:
        return asyncio.run(_list(member, signature, body))
    except (BackupError, TimeoutError):
        return ()


async def _list(member: str, signature: str, body: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    from immich_usb_backup.adapters.bus import Bus

    async with asyncio.timeout(_ANSWER_SECONDS):
        bus = await Bus.system(timeout=_ANSWER_SECONDS)
        try:
            (found,) = await bus.call(*_MANAGER, member, signature, body)
        finally:
            await bus.close()
    return [entry for entry in found if isinstance(entry, dict)]
