"""What is offered at the tab key, whatever disks are called and whatever the service does."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import Any

import pytest

from immich_usb_backup.__main__ import COMMANDS, main
from immich_usb_backup.cli import completion
from immich_usb_backup.errors import BusLost
from immich_usb_backup.policy.typing_ahead import Word, disks, matching, unquoted


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What is printed for a line, as texts; the service knows one disk and one run."""

    async def known(member: str, signature: str, body: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"Name": "Blue", "Uuid": "1234-ABCD"}] if member == "GetDisks" else [{"Run": "R1", "Headline": "ok"}]

    monkeypatch.setattr(completion, "_list", known)

    def look(*typed: str) -> list[str]:
        assert main(["completion", "words", *typed]) == 0
        return [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]

    return look


def test_every_command_is_offered_and_those_of_systemd_only_when_begun(offered: Any) -> None:
    (first, *found) = offered("")
    assert first == "words"
    assert {name for name, text in COMMANDS.items() if not text.endswith("this)")} == set(found)
    assert "make-dump" not in found
    assert offered("make-d") == ["words", "make-dump"]
    assert offered("--v") == ["words", "--version"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_offers_its_options(command: str, offered: Any) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    importlib.import_module(f"immich_usb_backup.cli.{command.replace('-', '_')}").add_arguments(parser)
    options = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
    assert set(offered(command, "--")) == {"words", *options}


def test_disks_runs_choices_and_files_are_told_apart(offered: Any) -> None:
    assert offered("verify", "") == ["words", "Blue"]
    assert offered("verify", "--all", "B") == ["words", "Blue"]
    assert offered("backup", "--mode", "") == ["words", "quick", "verify", "full"]
    assert offered("backup", "--mode=fu") == ["words", "--mode=full"]
    assert offered("backup", "--mode", "=", "fu") == ["words", "full"], "as bash splits it"
    assert offered("backup", "--mode", "full", "12") == ["words", "1234-ABCD"]
    assert offered("check-config", "/et") == ["files"]
    assert offered("restore", "--from", "") == ["files"]
    assert offered("show", "") == ["words", "R1"]
    assert offered("history", "Bl") == ["words", "Blue"]
    assert offered("backup", "Blue", "") == ["words"], "there is no second disk"
    assert offered("nonsense", "") == ["words"]


def test_without_an_answer_nothing_is_offered_and_nothing_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def nobody(member: str, signature: str, body: Sequence[Any]) -> None:
        raise BusLost("The system bus cannot be reached")

    monkeypatch.setattr(completion, "_list", nobody)
    assert main(["completion", "words", "verify", ""]) == 0
    assert capsys.readouterr() == ("words\n", "")


def test_a_service_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hanging:
        @classmethod
        async def system(cls, *, timeout: float) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(completion, "_ANSWER_SECONDS", 0.01)
    monkeypatch.setattr("immich_usb_backup.adapters.bus.Bus", Hanging)
    assert main(["completion", "words", "verify", ""]) == 0
    assert capsys.readouterr() == ("words\n", "")


def test_names_that_no_line_can_hold_give_way_to_the_uuid() -> None:
    (word,) = disks([{"Name": "a\x1b[2J", "Uuid": "1234-ABCD", "Device": ""}])
    assert word.text == "1234-ABCD"


def test_disks_of_one_name_are_offered_by_their_uuids() -> None:
    found = disks([{"Name": "Blue", "Uuid": "A"}, {"Name": "Blue", "Uuid": "B"}])
    assert [word.text for word in matching(found, "")] == ["A", "B"]
    assert matching(found, "Bl") == []


@pytest.mark.parametrize("typed", ["My\\ D", '"My D', "'My D"])
def test_what_was_typed_in_quotes_is_understood(typed: str) -> None:
    assert unquoted(typed) == "My D"
    assert [word.text for word in matching([Word("My Disk")], typed)] == ["My Disk"]


def test_nothing_is_put_into_open_quotes_that_would_be_run_there() -> None:
    assert matching([Word("My $(x)")], '"My') == []
    assert [word.text for word in matching([Word("My $(x)")], "My")] == ["My $(x)"]
