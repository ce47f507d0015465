"""Which folders of the server's are mirrored, in which order, and where they go."""

from __future__ import annotations

from dataclasses import dataclass

from immich_usb_backup.config import LIBRARY_FOLDERS, AbsolutePath, Config
from immich_usb_backup.model import Mode, Stage
from immich_usb_backup.policy.exclude import Excludes
from immich_usb_backup.policy.names import fold
from immich_usb_backup.policy.plan import Rules

_STAGES = {"upload": Stage.UPLOAD, "library": Stage.LIBRARY, "profile": Stage.PROFILE}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFolder:
    """A folder with originals: ``name`` is its path on the disk and in messages, ``path`` the server's. ``immichs``: it is
    one of Immich's own, with its mark in it."""

    name: str
    path: AbsolutePath
    stage: Stage
    immichs: bool
    exclude: tuple[str, ...]


def source_folders(config: Config) -> tuple[SourceFolder, ...]:
    """All of them, in the order in which a file that Immich moves meanwhile is still met."""
    own = [
        SourceFolder(
            name=name,
            path=config.media_location / name,
            stage=_STAGES[name],
            immichs=True,
            exclude=config.exclude.get(name, ()),
        )
        for name in LIBRARY_FOLDERS
    ]
    extra = [
        SourceFolder(
            name=f"extra/{name}", path=path, stage=Stage.EXTRA, immichs=False, exclude=config.exclude.get(name, ())
        )
        for name, path in config.extra.items()
    ]
    return (*own, *extra)


def rules_for(
    source: SourceFolder,
    config: Config,
    *,
    mode: Mode,
    doubtful: frozenset[bytes],
    altered: frozenset[bytes],
    suspects: frozenset[bytes] = frozenset(),
    cluster: int,
) -> Rules:
    """How one of them is planned."""
    inside = (config.media_location, *config.extra.values())
    name = source.name.encode()
    return Rules(
        name=name,
        source=_bytes(source.path),
        mode=mode,
        excludes=Excludes.parse(source.exclude),
        inside=tuple(map(_bytes, inside)),
        doubtful=frozenset(fold(path) for path in doubtful if path.startswith(name + b"/")),
        altered=frozenset(fold(path) for path in altered if path.startswith(name + b"/")),
        suspects=frozenset(fold(path) for path in suspects if path.startswith(name + b"/")),
        cluster=cluster,
    )


def _bytes(path: AbsolutePath) -> bytes:
    return str(path).encode("utf-8", "surrogateescape")
