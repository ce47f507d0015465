"""A disk's verdict in words: one sentence that a person understands, and what else is to be known."""

from __future__ import annotations

from datetime import datetime

from immich_usb_backup.model import DiskVerdict, Restorable
from immich_usb_backup.policy.text import counted, harmless, moment, printable, sentence


def verdict_sentence(verdict: DiskVerdict, disk_name: str, *, today: datetime | None = None) -> str:
    """The whole of it in one sentence. On the day of the dump (``today``, zoned) its time is enough, else its date is said."""
    name = f"'{printable(disk_name)}'"
    if not verdict.dump:
        return f"{counted(verdict.files, 'file')} {_are(verdict.files)} on {name}, and no good database dump came with them."
    dump = f"the dump of {_dump_time(verdict, today)}"
    if verdict.restorable is Restorable.NO and not (verdict.assets or verdict.external):
        return f"The photos on {name} could not be held against {dump}."
    if not verdict.assets:
        return f"{dump[0].upper()}{dump[1:]} names no photos in Immich's own folders."
    photos = f"{verdict.present:,} of {counted(verdict.assets, 'photo')} in {dump} {_are(verdict.present)} on {name}"
    return f"{photos}; {_proof(verdict)}." if verdict.present else f"{photos}."


def verdict_lines(verdict: DiskVerdict, disk_name: str, *, today: datetime | None = None) -> tuple[str, ...]:
    """The sentence, whether the disk brings everything back, and what is remarkable. The files that would not come back
    are in ``verdict.exceptions``."""
    return (
        verdict_sentence(verdict, disk_name, today=today),
        restorable_line(verdict),
        *(line for line in (_changed(verdict), _spared(verdict), _moved(verdict), _unknown(verdict)) if line),
    )


def restorable_line(verdict: DiskVerdict) -> str:
    """Yes, no, or yes except so many, with the reasons."""
    reasons = harmless("; ".join(verdict.reasons))
    answer = {
        Restorable.YES: "yes",
        Restorable.EXCEPT: f"yes, except {counted(verdict.exception_count, 'file')}",
        Restorable.NO: "no",
    }[verdict.restorable]
    return sentence(f"Restorable from this disk: {answer}" + (f": {reasons}" if reasons else ""))


def _dump_time(verdict: DiskVerdict, today: datetime | None) -> str:
    if verdict.dump_time is None:
        return "unknown time"
    local = verdict.dump_time.astimezone()
    return f"{local:%H:%M}" if today is not None and today.astimezone().date() == local.date() else moment(local)


def _proof(verdict: DiskVerdict) -> str:
    if not (verdict.proven or verdict.files_proven):
        return "none has been read back yet"
    if verdict.proven < verdict.present and not _all_read(verdict):
        return f"{verdict.proven:,} {_have(verdict.proven)} been read back so far"
    if verdict.oldest_proof is None:
        return "all have been read back"
    local = verdict.oldest_proof.astimezone()
    return f"all re-read since {local.day} {local:%B %Y}"


def _all_read(verdict: DiskVerdict) -> bool:
    """Whether those that are not proven were read back too, and have another content than Immich says."""
    return verdict.files_proven >= verdict.files and verdict.proven + verdict.changed >= verdict.present


def _changed(verdict: DiskVerdict) -> str:
    number = verdict.changed
    if not number:
        return ""
    return (
        f"{counted(number, 'photo')} {_are(number)} not as uploaded to Immich, neither on the server nor on the disk."
    )


def _spared(verdict: DiskVerdict) -> str:
    number = verdict.rotten_on_server
    if not number:
        return ""
    return f"{counted(number, 'file')} {_have(number)} been damaged on the server; the disk has what was there before."


def _moved(verdict: DiskVerdict) -> str:
    number = verdict.moved
    if not number:
        return ""
    return f"{counted(number, 'photo')} {'lies' if number == 1 else 'lie'} in another place than the dump says: Immich moved them since."


def _unknown(verdict: DiskVerdict) -> str:
    number = verdict.unknown
    if not number:
        return ""
    return f"{counted(number, 'file')} on the disk {_are(number)} not in the dump: mostly what was uploaded after it."


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
