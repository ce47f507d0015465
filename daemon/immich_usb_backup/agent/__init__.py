"""The process in a user's session that shows on the desktop what the daemon does, and passes on what its buttons ask for."""
