"""What the exit codes mean (from sysexits.h where there is one)."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Documented in the man page; scripts rely on them."""

    OK = 0
    PROBLEM = 1
    USAGE = 64
    UNAVAILABLE = 69
    BUG = 70
    NOT_HERE = 75
    CONFIG = 78
