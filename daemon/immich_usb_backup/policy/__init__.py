"""Pure functions: values in, verdicts with all their reasons out. No I/O, no clock, no loop."""
