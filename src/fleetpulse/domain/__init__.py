"""What every number means. Pure: standard library only, no clock, file, network or logging."""
