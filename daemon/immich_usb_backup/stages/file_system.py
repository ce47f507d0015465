"""Before anything is written: is the file system whole? Only of a disk that nobody has mounted."""

from __future__ import annotations

from immich_usb_backup.errors import FileSystemDamaged
from immich_usb_backup.model import Health, Partition, Stage
from immich_usb_backup.policy.file_system import Step, decide, first_step
from immich_usb_backup.stages.context import RunContext


async def check_file_system(run: RunContext, partition: Partition, *, ours: bool, carries_ours: bool = False) -> bool:
    """Check a file system that says that it was not unmounted properly, and repair it where that was our own run's doing.
    ``ours``: this server's state on the disk says that it was writing; ``carries_ours``: it is this server's state, whatever
    it says. Returns whether it had not been unmounted properly.

    Raises ``FileSystemDamaged`` where it must not be written to, ``DiskGone``, ``BusLost``, ``DeadlineMissed``.
    """
    option = run.config.disks.check_file_system
    step = first_step(option, ours=ours)
    tried = unclean = False
    while step in {Step.CHECK, Step.REPAIR}:
        run.show(Stage.CHECK)
        systems = run.ports.file_systems
        tried = tried or step is Step.REPAIR
        health, said = await (systems.repair if step is Step.REPAIR else systems.check)(partition)
        decision = decide(health, said, option=option, ours=ours, carries_ours=carries_ours, repair_tried=tried)
        step = decision.step
        if step is Step.REFUSE:
            raise FileSystemDamaged(decision.finding.message if decision.finding else said)
        if decision.finding is not None and (ours or health is not Health.UNKNOWN):
            run.note(decision.finding)
        unclean = unclean or health in {Health.DIRTY, Health.REPAIRED}  # sound, and files may be missing all the same
    return unclean
