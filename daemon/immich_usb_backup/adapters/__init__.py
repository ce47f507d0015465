"""The world: udev, D-Bus, UDisks2, rsync, files, systemd, mail. Each implements a port; none knows another's policy."""
