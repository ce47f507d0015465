"""Whatever Linux allows as a name comes back from the disk as it was."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.backup_folder import make_backup

from immich_usb_backup.__main__ import main
from immich_usb_backup.policy.restore import IMMICH_MARK, STAGING

TAKEN = {b".", b"..", IMMICH_MARK.encode(), STAGING.encode()}
WORDS = st.sampled_from(
    [b"IMG_1.jpg", b"img_1.JPG", b"12:30.jpg", b"a.", b"con", b"caf\xe9", "Café".encode(), b".partial"]
)
NAMES = (st.binary(min_size=1, max_size=30).map(lambda raw: raw.translate(None, b"\0/") or b"x") | WORDS).filter(
    lambda name: name not in TAKEN
)
TREES = st.recursive(
    st.binary(max_size=50), lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=5), max_leaves=12
)


@contextmanager
def _folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="restore-names-"))
    try:
        yield path
    finally:
        shutil.rmtree(os.fsencode(path))


def _grow(above: bytes, tree: dict[bytes, Any]) -> None:
    os.mkdir(above)
    for name, inner in tree.items():
        path = above + b"/" + name
        if isinstance(inner, dict):
            _grow(path, inner)
        else:
            Path(os.fsdecode(path)).write_bytes(inner)


def _grown(above: bytes) -> dict[bytes, Any]:
    paths = {name: above + b"/" + name for name in os.listdir(above) if name != IMMICH_MARK.encode()}
    return {
        name: _grown(path) if os.path.isdir(path) else Path(os.fsdecode(path)).read_bytes()
        for name, path in paths.items()
    }


@settings(max_examples=40)
@given(library=st.dictionaries(NAMES, TREES, max_size=5))
def test_every_name_comes_back(library: dict[bytes, Any]) -> None:
    with _folder() as root:
        for folder in ("upload", "profile", "backups"):
            (root / "media" / folder).mkdir(parents=True)
        _grow(os.fsencode(root / "media/library"), library)
        make_backup(root / "disk", root / "media")
        main(["restore", "--from", str(root / "disk"), "--to", str(root / "restored")])  # no dump is there: it says so
        assert _grown(os.fsencode(root / "restored/library")) == library
