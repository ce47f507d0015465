"""Making a fresh database dump: runs in a unit of its own, which has the network, and neither the photos nor a disk."""
