"""What a pattern leaves out, by the examples of rsync's manual. ``tests/integration`` asks rsync itself."""

from __future__ import annotations

import pytest

from immich_usb_backup.policy.exclude import Excludes


@pytest.mark.parametrize(
    ("pattern", "left_out", "kept"),
    [
        ("*.o", ["a.o", "a/b.o", ".o", "a.o/"], ["a.ob", "o", "a.o/b"]),
        ("/foo", ["foo", "foo/"], ["a/foo", "foo/a"]),
        ("foo", ["foo", "a/foo/"], ["xfoo", "foox"]),
        ("foo/", ["foo/", "a/foo/"], ["foo", "a/foo"]),
        ("foo/bar", ["foo/bar", "a/foo/bar"], ["xfoo/bar", "foo/a/bar", "bar"]),
        ("foo/*/bar", ["foo/a/bar", "x/foo/a/bar/"], ["foo/bar", "foo/a/b/bar"]),
        ("/foo/**/bar", ["foo/a/bar", "foo/a/b/bar"], ["foo/bar", "a/foo/b/bar"]),
        ("**/bar", ["bar", "a/bar", "a/b/bar"], ["abar"]),
        ("dir/***", ["dir/", "dir/a", "x/dir/", "x/dir/a/b"], ["dir", "adir/"]),
        ("dir/**", ["dir/a", "dir/a/"], ["dir/", "dir"]),
        ("a?c", ["abc", "x/abc"], ["ac", "a/c"]),
        ("/a[!x]c", ["abc"], ["axc", "a/c"]),
        ("[[:digit:]a-c]", ["1", "b"], ["d", "1b"]),
        ("a\\*", ["a*"], ["ab", "a\\*"]),
        ("a\\b", ["a\\b"], ["ab"]),
        ("\u00e9", ["\u00e9"], ["e\u0301"]),
    ],
)
def test_what_a_pattern_leaves_out(pattern: str, left_out: list[str], kept: list[str]) -> None:
    excludes = Excludes.parse([pattern])
    assert excludes
    for paths, expected in ((left_out, True), (kept, False)):
        for path in paths:
            folder = path.endswith("/")
            assert excludes.matches(path.rstrip("/").encode(), folder=folder) is expected, path


def test_no_patterns_leave_nothing_out() -> None:
    none = Excludes.parse([])
    assert not none
    assert not none.matches(b"a", folder=False)
    assert not none.matches(b"a", folder=True)


def test_only_folders_are_asked_for() -> None:
    excludes = Excludes.parse(["cache/"])
    assert excludes
    assert excludes.matches(b"a/cache", folder=True)
    assert not excludes.matches(b"a/cache", folder=False)


def test_any_of_several_patterns_will_do() -> None:
    excludes = Excludes.parse(["*.tmp", "/a/***"])
    assert [excludes.matches(path, folder=False) for path in (b"x/y.tmp", b"a/b", b"b/a/c")] == [True, True, False]


def test_a_name_with_a_line_break_or_without_text() -> None:
    assert Excludes.parse(["a*"]).matches(b"x\ny/a\n\xff", folder=False)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "a pattern is empty"),
        ("/", "the pattern '/' names nothing"),
        ("a\0b", "contains a zero byte"),
        ("+ a", "each pattern only leaves something out"),
        ("- a", "each pattern only leaves something out"),
        ("!a", "each pattern only leaves something out"),
        ("[ab", "the pattern '[ab' has a [ without its ]"),
        ("[]", "has a [ without its ]"),
        ("[[:letter:]]", "has an unknown class between [: and :]"),
        ("*\\", "ends with a backslash"),
        ("\ud800", "is not text"),
    ],
)
def test_what_would_leave_nothing_out_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"pattern") as error:
        Excludes.parse(["fine", pattern])
    assert reason in str(error.value)
