"""Tests on a Debian guest under QEMU, with USB sticks that are plugged in and pulled."""
