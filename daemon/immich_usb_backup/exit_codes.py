"""What the exit codes mean (from sysexits.h where there is one)."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Documented in docs/reference/exit-codes.md; scripts rely on them. argparse ends with 2 for wrong usage."""

    OK = 0
    PROBLEM = 1
    UNAVAILABLE = 69
    BUG = 70
    NOT_HERE = 75
    CONFIG = 78
    ANEW = 79
