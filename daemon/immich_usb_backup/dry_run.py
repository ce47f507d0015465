"""What a run would do now, without doing it: the disk is mounted read-only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, DiskGone, Interrupted, MarkerUnusable
from immich_usb_backup.marker_look import look_for_marker
from immich_usb_backup.model import Mode, Mount, Partition, PartitionSeen, PlanReport
from immich_usb_backup.policy.plan_report import plan_report
from immich_usb_backup.policy.report import identify
from immich_usb_backup.ports import Manifest, Ports, Target
from immich_usb_backup.protect import protected
from immich_usb_backup.release import release
from immich_usb_backup.run import Stop
from immich_usb_backup.stages.context import RunContext
from immich_usb_backup.stages.inventory import take_stock
from immich_usb_backup.stages.planning import decide
from immich_usb_backup.stages.room import judge
from immich_usb_backup.stages.state import open_disk
from immich_usb_backup.trust_look import demand_trust


async def dry_run(seen: PartitionSeen, *, config: Config, ports: Ports, mode: Mode | None, stop: Stop) -> PlanReport:
    """Look at the disk and at the server, and report what would be done. Nothing is written to the disk.

    Raises ``BackupError``: ``MarkerUnusable`` for a disk without a marker, ``DiskNotTrusted``, ``ForeignBackup``, ``DiskGone`` ...
    """
    try:
        partition = await ports.disks.find(seen)
        looked = await look_for_marker(partition, grace_seconds=config.disks.automounter_grace_seconds, ports=ports)
        if looked.marker is None:
            raise MarkerUnusable(f"{seen.device_node} has no marker immich-server-backups")
        await demand_trust(seen, looked, trust=config.disks.trust, ports=ports)
        disk = identify(seen, looked.partition, looked.marker.name)
        run = RunContext(
            run_id="plan",
            disk=disk,
            started=ports.clock.now(),
            config=config,
            ports=ports,
            mode=mode or config.mode_of(disk.name, disk.label, disk.uuid),
        )
        async with _mounted(looked.partition, ports) as mount, _opened(mount, ports) as target:
            return await _plan(run, target)
    except asyncio.CancelledError:
        cause = stop.cause or Interrupted("The plan was stopped")
        _forget_cancellation()
        raise cause from None
    except OSError as error:
        raise BackupError(f"The disk answered: {error.strerror or error}") from error


async def _plan(run: RunContext, target: Target) -> PlanReport:
    async with _manifest(run) as manifest:
        work = await open_disk(run, target, manifest)
        await take_stock(work, dry=True)
        decision = await decide(work, compare=False)
        return plan_report(
            run.disk,
            run.mode,
            plan=decision.plan,
            steps=decision.steps,
            removals=decision.removals,
            held=decision.held,
            approval=decision.approval,
            room=await judge(work, decision),
            findings=(*run.findings, *decision.findings),
        )


@asynccontextmanager
async def _mounted(partition: Partition, ports: Ports) -> AsyncIterator[Mount]:
    """Read-only, or as somebody else has mounted it; what we mounted is unmounted."""
    mounts: list[Mount] = []

    async def mount() -> None:
        mounts.append(await ports.disks.mount(partition, read_only=True))

    try:
        await protected(mount())
        yield mounts[0]
    finally:
        if any(mount.ours for mount in mounts):
            await protected(_release(partition, ports))


async def _release(partition: Partition, ports: Ports) -> None:
    try:
        await release(partition, ports=ports)
    except DiskGone:
        return  # what was to be let go of has gone by itself


@asynccontextmanager
async def _opened(mount: Mount, ports: Ports) -> AsyncIterator[Target]:
    target = await ports.targets.open_to_read(mount)
    try:
        yield target
    finally:
        await protected(target.close())


@asynccontextmanager
async def _manifest(run: RunContext) -> AsyncIterator[Manifest]:
    """What the planning writes into it is forgotten."""
    manifest = await run.ports.manifests.open(run.disk.uuid)
    try:
        yield manifest
    finally:
        await protected(manifest.close())


def _forget_cancellation() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
