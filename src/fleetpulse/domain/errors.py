"""The error tree: what can go wrong, whether a retry may help, and the exit code of the command.

A message names where, what was found, what was wanted, and the next step: the user reads nothing
else. Exit codes: 1 failure, 2 wrong use or settings, 69 an outside service is unreachable, 74 disk,
75 already running, 77 an outside service refuses us, 78 damaged state, 79 data changed by someone
else. 69 to 78 follow sysexits.h; 79 is our own.
"""

from typing import ClassVar


class FleetpulseError(Exception):
    """A failure that is explained to the user in one message, without a traceback."""

    exit_code: ClassVar[int] = 1
    retriable: ClassVar[bool] = False


class UsageError(FleetpulseError):
    """Wrong arguments, settings or input file; nothing was done."""

    exit_code = 2


class DeliveryFailed(FleetpulseError):
    """The broker did not acknowledge every message; the others are there."""

    retriable = True


class ServiceUnreachable(FleetpulseError):
    """An outside service (broker, registry) does not answer; trying again may help."""

    exit_code = 69
    retriable = True


class AccessDenied(ServiceUnreachable):
    """An outside service refuses our certificate, user or token, or what that user asks for."""

    exit_code = 77


class DiskError(FleetpulseError):
    """The disk is full, read-only or failing; nothing was lost, lag grows in Kafka instead."""

    exit_code = 74


class AlreadyRunning(FleetpulseError):
    """Another process holds the lock of this role and folder."""

    exit_code = 75


class DamagedState(FleetpulseError):
    """A state file cannot be read, or was written by a newer version."""

    exit_code = 78


class DataChanged(FleetpulseError):
    """A file or topic is not what the state says that it was: somebody else changed it."""

    exit_code = 79
