"""The small file on a disk that says whose backup it is, and whether a run was over when the disk was taken out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from immich_usb_backup.errors import ManifestUnusable

STATE = "state.json"
"""Its name on the disk, in the backup folder."""

STATE_BYTES = 64 * 1024
"""No more than this is read of it."""

STATE_VERSION = 1
_FORMAT = "immich-usb-backup state"
_ABOUT = (
    "Written by immich-usb-backup. writing: true means that a backup was not finished; the next plug-in finishes it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskState:
    """``writing``: from a run's first write to its last flush. ``generation`` names the manifest that goes with it, empty
    before the first. ``run_id`` and ``since``: the run that wrote this, and when it began or ended (UTC)."""

    server_id: str
    server_name: str
    generation: str
    run_id: str
    since: datetime
    writing: bool


def encode(state: DiskState) -> bytes:
    """The file's content."""
    fields = {
        "about": _ABOUT,
        "format": _FORMAT,
        "version": STATE_VERSION,
        "server": state.server_name,
        "server_id": state.server_id,
        "generation": state.generation,
        "run": state.run_id,
        "since": state.since.astimezone(UTC).isoformat(timespec="seconds"),
        "writing": state.writing,
    }
    return (json.dumps(fields, indent=2) + "\n").encode("ascii")


def decode(content: bytes) -> DiskState | None:
    """The state, or None where the file is damaged. Raises ``ManifestUnusable`` where a newer version wrote it."""
    try:
        fields = json.loads(content.decode("utf-8"))
        if fields["format"] != _FORMAT:
            return None
        if fields["version"] > STATE_VERSION:
            raise ManifestUnusable(
                f"A newer version of immich-usb-backup wrote to this disk (format {fields['version']})", newer=True
            )
        return _state(fields)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _state(fields: dict[str, Any]) -> DiskState:
    texts = [fields[name] for name in ("server_id", "server", "generation", "run")]
    if not all(isinstance(text, str) and len(text) < 1000 for text in texts) or not isinstance(fields["writing"], bool):
        raise ValueError("a field has another type")
    since = datetime.fromisoformat(fields["since"])
    if since.tzinfo is None:
        raise ValueError("a time without a zone")
    return DiskState(
        server_id=texts[0],
        server_name=texts[1],
        generation=texts[2],
        run_id=texts[3],
        since=since.astimezone(UTC),
        writing=fields["writing"],
    )
