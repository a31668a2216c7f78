"""The command line: arguments -> settings -> one role; signals and exit codes."""

from fleetpulse.cli.app import main

__all__ = ["main"]
