"""What the service's walls hide of the configured folders, and that the drop-in opens just that."""

from __future__ import annotations

import pytest

from immich_usb_backup.policy.hidden_paths import configured, drop_in, hidden


def test_every_folder_that_the_service_reads_is_looked_at() -> None:
    config = {
        "media_location": "/a",
        "config_files": ["/b", "/c"],
        "extra": {"pictures": "/d"},
        "database": {"dumps": "/e"},
        "mail": {"password_file": "/f"},
    }
    assert sorted(configured(config)) == ["/a", "/b", "/c", "/d", "/e"]


@pytest.mark.parametrize(
    "config",
    [{}, {"media_location": 7, "config_files": "x", "extra": [1], "database": "x"}, {"config_files": [7, "relative"]}],
)
def test_a_configuration_with_mistakes_opens_nothing(config: dict[str, object]) -> None:
    assert list(configured(config)) == []


def test_only_what_is_hidden_is_opened_and_that_once() -> None:
    paths = [
        "/srv/immich",
        "/home/alice/photos",
        "/home/alice/photos/old",
        "/home/alice/photos/",
        "/rooted",
        "/root/docker",
    ]
    assert hidden(paths) == ("/home/alice/photos", "/root/docker")


def test_a_path_that_goes_around_is_seen() -> None:
    assert hidden(["/srv/../home/alice//./photos", "/home/../srv"]) == ("/home/alice/photos",)


def test_nothing_is_written_where_nothing_is_hidden() -> None:
    assert drop_in(["/var/lib/immich"]) == ""


def test_the_drop_in_opens_for_reading_and_stumbles_over_nothing() -> None:
    lines = drop_in(['/home/my "best" photos/100%', "/home/back\\slash"]).splitlines()
    assert lines[1:] == [
        "[Service]",
        'BindReadOnlyPaths="-/home/back\\\\slash"',
        'BindReadOnlyPaths="-/home/my \\"best\\" photos/100%%"',
    ]


def test_all_homes_at_once_are_read_only_and_not_written_over() -> None:
    assert "ProtectHome=read-only" in drop_in(["/home"])
    assert "Bind" not in drop_in(["/home", "/root/x"])


@pytest.mark.parametrize("path", ["/home/a:b", "/home/a\nExecStart=/bin/x"])
def test_a_path_that_systemd_would_misread_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="cannot be opened"):
        drop_in([path])
