"""What the agent's command finds out about its user."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from immich_usb_backup.cli.agent import is_member, state_folder


def test_who_is_in_a_group_and_who_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    own = grp.getgrgid(os.getgid()).gr_name
    assert is_member(own)
    assert not is_member("no-such-group")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert not is_member(own), "a user that nobody knows"


def test_a_group_that_was_joined_since_the_login_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, grp.getgrnam("daemon").gr_gid])
    assert is_member("daemon")


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"STATE_DIRECTORY": "/s/one:/s/two", "XDG_STATE_HOME": "/x"}, "/s/one"),
        ({"XDG_STATE_HOME": "/x"}, "/x/immich-usb-backup-agent"),
        ({}, "/h/.local/state/immich-usb-backup-agent"),
    ],
)
def test_where_it_remembers(environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/h", **environment}.items():
        monkeypatch.setenv(name, value)
    assert state_folder() == Path(folder)
