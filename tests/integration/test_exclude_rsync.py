"""Our exclude patterns leave out what the real rsync leaves out with the same ones."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immich_usb_backup.policy.exclude import Excludes

FOLDERS = (b"a", b"b", b"ab", b"a.b", b"[a]")
FILES = (b"c", b"abc", b"c.b", b".c", b"a*", b"a\\", b"]", b"-", b"B1", b" ", "\u00e9".encode(), b"\xff")
ANY = [
    "a", "foo", "*.b", "*", "**", "***", "?", "??", "/a", "/c", "a/", "/a/", "c/", "*/", "**/", "a/c", "/a/c", "a/b/c",
    "*/c", "/*/c", "/*/*/c", "a/*", "a/**", "/a/**", "a/***", "/a/***", "a/b/***", "**/c", "/**/c", "**/b/c", "a/**/c",
    "/a/**/c", "a**c", "/a**c", "**a", "**a/", "b**", "***c", "a/***/c", "[ab]", "[!a]", "[^a]", "[a-b]", "[!a-b]*",
    "[]]", "[!]]", "[]a-]", "[a-]", "[-a]", "[z-a]", "[a-b-c]", "[\\]]", "[\\a-\\b]", "[[:alpha:]]", "[[:upper:]]*",
    "[[:digit:][:lower:]]", "[![:alnum:]]", "[[:space:]]", "[[:punct:]]", "[[:xdigit:]]*", "[[:cntrl:]]", "[[:print:]]",
    "[[:graph:]]", "[[:blank:]]", "[a[:b]", "[[:]", "[[.]", "\\[a\\]", "a\\", "a\\*", "a\\**", "a\\\\*", "\\a*", "[[]a]",
    "\u00e9", "\u00e9*", "[\u00e9]", "/a/[!x]c", "a[!x]c", "b/a[/]c", "/*[!q]a*b", "*[!q]a*b", "a//c", "//a", "a//", "./c",
    "a/../c", "*a*b*", "*a*/*b*", "*a*/**b*", "*/*/*", "/*/*/", "{a,b}", " ", "- ", "-", "#c", "; c",
]  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every name in every folder, three deep."""
    top = tmp_path_factory.mktemp("tree")
    for depth in range(3):
        for folders in itertools.product(FOLDERS[: 5 - depth], repeat=depth):
            here = top.joinpath(*map(os.fsdecode, folders))
            here.mkdir(exist_ok=True)
            for name in FILES:
                (here / os.fsdecode(name)).touch()
            for name in FOLDERS:
                (here / os.fsdecode(name)).mkdir(exist_ok=True)
    return top


def _rsyncs(tree: Path, patterns: list[str]) -> set[bytes]:
    options = [os.fsencode(f"--exclude={pattern}") for pattern in patterns]
    command: list[str | bytes] = ["rsync", "-nr8", "--out-format=%n", *options, f"{tree}/", f"{tree}.copy/"]
    done = subprocess.run(command, capture_output=True, timeout=30, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr
    return (
        set(done.stdout.splitlines()) - {b"./"} - {line for line in done.stdout.splitlines() if b"created dir" in line}
    )


def _ours(tree: Path, patterns: list[str]) -> set[bytes]:
    return set(_kept(Excludes.parse(patterns), os.fsencode(tree), b""))


def _kept(excludes: Excludes, top: bytes, under: bytes) -> Iterator[bytes]:
    with os.scandir(os.path.join(top, under)) as entries:
        for entry in entries:
            path = under + entry.name
            folder = entry.is_dir()
            if not excludes.matches(path, folder=folder):
                yield path + (b"/" if folder else b"")
                if folder:
                    yield from _kept(excludes, top, path + b"/")


def _same(tree: Path, patterns: list[str]) -> None:
    try:
        ours = _ours(tree, patterns)
    except ValueError:
        if len(patterns) == 1:
            assert _rsyncs(tree, patterns) == _ours(tree, []), "it is refused, and rsync leaves something out by it"
        return
    assert ours == _rsyncs(tree, patterns)


@pytest.mark.parametrize("pattern", [pattern for pattern in ANY if pattern != "- "])
def test_each_pattern_leaves_out_what_rsync_leaves_out(tree: Path, pattern: str) -> None:
    _same(tree, [pattern])


def test_patterns_add_up(tree: Path) -> None:
    patterns = ["/a/b/", "*.b", "**/[a]/c", "ab/***"]
    _same(tree, patterns)
    assert len(_ours(tree, patterns)) < len(_ours(tree, patterns[:1])) < len(_ours(tree, []))


PARTS = ["a", "b", "c", "ab", ".", "/", "*", "**", "***", "?", "[ab]", "[!a]", "[^b-c]", "[[:alpha:]]", "[", "]", "\\", "-",
         "\\*", "[]a]", "[a-]", "\u00e9", "[!", "[:", ":]", "B1"]  # fmt: skip


@settings(max_examples=150)
@given(patterns=st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=7).map("".join), min_size=1, max_size=2))
def test_patterns_by_chance(tree: Path, patterns: list[str]) -> None:
    _same(tree, patterns)
