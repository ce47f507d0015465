"""The commands, one file each, thin: they parse, wire and print."""
