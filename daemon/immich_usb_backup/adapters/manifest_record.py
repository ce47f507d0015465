"""What the server remembers of a disk beside its files, as JSON. Names from a disk may hold half surrogate pairs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.policy.manifest import DiskRecord, Fingerprint


def dump(record: DiskRecord) -> str:
    """ASCII, whatever the names are."""
    seen = record.fingerprint
    document = {
        "generation": record.generation,
        "walked": record.walked.isoformat() if record.walked else None,
        "fingerprint": {"free_clusters": seen.free_clusters, "entries": seen.entries} if seen else None,
        "proofs": dict(record.proofs),
        "mount_points": record.mount_points,
        "adopt": record.adopt,
        "approved": record.approved,
        "verifying": record.verifying.isoformat() if record.verifying else None,
    }
    return json.dumps(document, separators=(",", ":"))


def load(content: str) -> DiskRecord:
    """Raises ``StateDamaged`` for anything that ``dump`` did not write."""
    try:
        return _record(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateDamaged(f"What is remembered of a disk is damaged ({error})") from error


def _record(document: Any) -> DiskRecord:
    return DiskRecord(
        generation=str(document["generation"]),
        walked=datetime.fromisoformat(document["walked"]) if document["walked"] else None,
        fingerprint=_fingerprint(document["fingerprint"]) if document["fingerprint"] else None,
        proofs={str(path): (int(size), str(digest)) for path, (size, digest) in document["proofs"].items()},
        mount_points=tuple(map(str, document["mount_points"])),
        adopt=document["adopt"] is True,
        approved=document["approved"] is True,
        verifying=datetime.fromisoformat(document["verifying"]) if document.get("verifying") else None,
    )


def _fingerprint(value: Any) -> Fingerprint:
    entries = tuple((str(name), folder is True, int(size), int(time)) for name, folder, size, time in value["entries"])
    return Fingerprint(free_clusters=int(value["free_clusters"]), entries=entries)
