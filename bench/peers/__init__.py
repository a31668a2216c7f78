"""The same work by other systems: what they run, how it is measured, and whether it is right."""
