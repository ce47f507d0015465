"""Names of the configuration zips, and the readme in them."""

from __future__ import annotations

from datetime import datetime

from immich_usb_backup.policy.archives import archive_name, newest_archive, readme, superfluous_archives

NOON = datetime(2026, 11, 21, 12, 0, 5).astimezone()
NAMES = ("config-2026-11-20.zip", "config-2026-11-21.zip", "config-2026-11-21-090000.zip", "mine.zip", "config-x.zip")


def test_a_zip_is_named_by_its_day_and_a_second_one_of_the_day_by_the_time_too() -> None:
    assert archive_name(NOON, []) == "config-2026-11-21.zip"
    assert archive_name(NOON, NAMES) == "config-2026-11-21-120005.zip"


def test_the_second_one_of_a_day_is_newer_than_the_first() -> None:
    assert newest_archive(NAMES) == "config-2026-11-21-090000.zip"
    assert newest_archive(["mine.zip"]) is None


def test_the_oldest_go_and_what_is_not_ours_stays() -> None:
    new = "config-2026-11-21-090000.zip"
    assert superfluous_archives(NAMES, keep=2, never=new) == ("config-2026-11-20.zip",)
    assert superfluous_archives(NAMES, keep=1, never=new) == ("config-2026-11-21.zip", "config-2026-11-20.zip")


def test_the_zip_of_today_stays_though_another_is_dated_in_the_future() -> None:
    names = ("config-2026-11-21.zip", "config-2099-01-01.zip")
    assert superfluous_archives(names, keep=1, never="config-2026-11-21.zip") == ("config-2099-01-01.zip",)


def test_the_readme_names_the_places_and_is_the_same_in_any_order() -> None:
    assert "    /etc/nixos\n" in readme(["/srv/x", "/etc/nixos"])
    assert readme(["/srv/x", "/etc/nixos"]) == readme(["/etc/nixos", "/srv/x"])
