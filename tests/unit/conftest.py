"""A small media location, and a world of fakes around it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tests.support.fakes import World

from immich_usb_backup import release
from immich_usb_backup.config import Config
from immich_usb_backup.stages import library

DUMP_TEXT = "--\n-- PostgreSQL database dump\n--\n\nSELECT 1;\n\n--\n-- PostgreSQL database dump complete\n--\n"
DUMP_NAME = "immich-db-backup-20261120T020000-v2.5.2-pg14.19.sql.gz"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Two photos, an avatar and a good dump."""
    root = tmp_path / "immich"
    files = {
        "upload/u1/aa/bb/1.jpg": b"one",
        "library/admin/2026/2.jpg": b"two",
        "profile/u1/me.jpg": b"me",
        f"backups/{DUMP_NAME}": gzip.compress(DUMP_TEXT.encode()),
    }
    files |= {f"{folder}/.immich": b"1" for folder in ("upload", "library", "profile", "backups")}
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


@pytest.fixture
def config(media: Path, tmp_path: Path) -> Config:
    (tmp_path / ".env").write_text("A=1\n")
    settings = {"media_location": str(media), "config_files": [str(tmp_path / ".env")]}
    return Config.model_validate({**settings, "disks": {"automounter_grace_seconds": 0}})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(release, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(library, "PAUSES_SECONDS", (0.0, 0.0, 0.0))
    return World(tmp_path)
