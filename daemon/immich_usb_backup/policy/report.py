"""Building run reports: what is known when a run begins, and when it has ended."""

from __future__ import annotations

from datetime import datetime

from immich_usb_backup.model import Disk, Finding, Outcome, Partition, PartitionSeen, RunReport, Severity

CUT_OFF = Finding(
    code="cut-off",
    severity=Severity.INTERRUPTED,
    message="The backup service ended in the middle of the run: it was killed, or the power failed",
    hint="Unplug the disk and plug it in again: the next run completes it.",
)


def identify(seen: PartitionSeen, partition: Partition, name: str | None) -> Disk:
    """How messages speak of this disk: by its marker's name, else its label, else its UUID."""
    return Disk(
        name=name or seen.label.strip() or seen.uuid,
        uuid=seen.uuid,
        label=seen.label,
        model=seen.model,
        serial=seen.serial,
        size=partition.size or seen.size,
        device_node=seen.device_node,
    )


def first_report(run_id: str, server: str, disk: Disk, started: datetime) -> RunReport:
    """The record of a run that has just begun; it is true should nothing ever follow it."""
    return RunReport(
        run_id=run_id,
        server=server,
        disk=disk,
        started=started,
        ended=started,
        outcome=Outcome.INTERRUPTED,
        safe_to_unplug=False,
        findings=(CUT_OFF,),
    )
