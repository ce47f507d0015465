"""The steps of a run. Each takes ports and says what it did and noticed; none knows how disks come and go."""
