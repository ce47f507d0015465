"""External libraries: covered by an extra folder, under the server's path or a container's; else the line that would."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from immich_usb_backup.config import parse
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.policy.external import Coverage, cover
from immich_usb_backup.policy.manifest import Known, KnownFolder
from immich_usb_backup.policy.text import harmless


def covered(
    paths: Iterable[bytes], on_disk: Iterable[bytes] = (), extra: Mapping[str, bytes] | None = None
) -> Coverage:
    """``on_disk`` are paths from ``extra/`` on."""
    files: dict[bytes, dict[bytes, Known]] = {}
    for path in on_disk:
        above, _, name = (b"extra/" + path).rpartition(b"/")
        files.setdefault(above, {})[name] = Known(name, name, 1, 1)
    tree = {path: KnownFolder(path, path, inside) for path, inside in files.items()}
    assets = sorted(Asset(path, b"", external=True) for path in paths)
    return cover(lambda: iter(assets), extra or {}, tree.get, lambda: None)


def test_the_servers_own_path() -> None:
    found = covered(
        [b"/mnt/p/2020/1.jpg", b"/mnt/p/2.jpg", b"/mnt/pp/2.jpg"],
        [b"pics/2020/1.jpg", b"pics/2.jpg"],
        {"pics": b"/mnt/p"},
    )
    assert (found.assets, found.missing.items) == (3, ["/mnt/pp/2.jpg"])
    assert found.lines == ('extra.pp = "/mnt/pp"',)


def test_a_containers_path_is_known_by_what_it_ends_with() -> None:
    inside = [b"2020/1.jpg", b"2020/2.jpg", b"2021/a/3.jpg"]
    found = covered([b"/ext/" + path for path in inside], [b"pics/" + path for path in inside], {"pics": b"/srv/p"})
    assert (found.assets, found.missing.count, found.lines) == (3, 0, ())


def test_two_libraries_of_a_container() -> None:
    found = covered(
        [b"/ext/a/1/1.jpg", b"/ext/a/2/2.jpg", b"/ext/b/1/9.jpg", b"/ext/b/8.jpg"],
        [b"anna/1/1.jpg", b"anna/2/2.jpg", b"bob/1/9.jpg", b"bob/8.jpg"],
        {"anna": b"/home/anna", "bob": b"/home/bob"},
    )
    assert found.missing.count == 0


def test_a_file_that_is_missing_in_a_folder_that_is_covered_needs_no_line() -> None:
    inside = [b"/ext/1/%d.jpg" % number for number in range(5)]
    found = covered(inside, [b"pics/1/%d.jpg" % number for number in range(4)], {"pics": b"/srv/p"})
    assert found.missing.items == ["/ext/1/4.jpg"]
    assert found.lines == ()
    direct = covered([b"/srv/p/1.jpg"], [], {"pics": b"/srv/p"})
    assert (direct.missing.count, direct.lines) == (1, ())


def test_a_few_names_that_agree_by_chance_cover_nothing() -> None:
    library = [b"/ext/100CANON/IMG_%04d.JPG" % number for number in range(10)]
    other = [b"pics/100CANON/IMG_%04d.JPG" % number for number in range(8, 200)]
    found = covered(library, other, {"pics": b"/srv/p"})
    assert found.missing.count == 10
    assert found.lines == ('extra.100CANON = "/ext/100CANON"',)


def test_links_cover_nothing() -> None:
    tree = {b"extra/p": KnownFolder(b"extra/p", b"extra/p", {b"1.jpg": Known(b"1.jpg", b"", 0, 0, link=b"x")})}
    assets = [Asset(b"/srv/p/1.jpg", b"", external=True)]
    found = cover(lambda: iter(assets), {"p": b"/srv/p"}, tree.get, lambda: None)
    assert found.missing.count == 1


def test_the_trash_is_counted_apart() -> None:
    assets = [Asset(b"/p/1.jpg", b"", external=True, trashed=True)]
    found = cover(lambda: iter(assets), {}, lambda _: None, lambda: None)
    assert (found.assets, found.trashed, found.missing.count, found.lines) == (0, 1, 0, ())


def test_one_line_for_each_folder_that_has_to_do_with_itself() -> None:
    found = covered(
        [
            *(b"/mnt/media/photos/2020/1.jpg", b"/mnt/media/photos/2021/1.jpg", b"/mnt/nas/x/upload/1.jpg"),
            *(b"/photos/a/1.jpg", b"/photos/b/1.jpg", b"/mnt/usb/photos/1.jpg"),
        ]
    )
    assert found.lines == (
        'extra.photos = "/mnt/media/photos"',
        'extra.upload-2 = "/mnt/nas/x/upload"',
        'extra.photos-2 = "/mnt/usb/photos"',
        'extra.photos-3 = "/photos"',
    )


def test_the_names_that_are_configured_are_not_offered_again() -> None:
    found = covered([b"/mnt/p/1.jpg"], [], {"P": b"/srv/p"})
    assert found.lines == ('extra.p-2 = "/mnt/p"',)


def test_many_folders_give_a_few_lines() -> None:
    found = covered([b"/mnt/%03d/1.jpg" % number for number in range(500)])
    assert len(found.lines) == 10
    assert found.missing.count == 500


TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Co", "Cn"], exclude_characters="\0/", max_codepoint=0xFFFF), min_size=1
)


@given(names=st.lists(TEXT.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=4))
def test_each_line_is_configuration_that_names_the_folder(names: list[str]) -> None:
    path = "/" + "/".join(names)
    (line,) = covered([path.encode() + b"/1.jpg"]).lines
    assert harmless(line) == line
    config = parse(line.encode(), origin="test")
    (value,) = tomllib.loads(line)["extra"].values()
    assert value == path
    assert len(config.extra) == 1
