"""The ZeroTier service of this machine, asked over its local HTTP interface."""
