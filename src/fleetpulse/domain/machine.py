"""The machines of an installation and the users that they log in as."""

from enum import StrEnum, auto


class Machine(StrEnum):
    """A machine that has settings, a certificate and a login of its own."""

    BROKER = auto()
    PRODUCER = auto()
    CONSUMER1 = auto()
    CONSUMER2 = auto()
    MONITOR = auto()

    @property
    def user(self) -> str:
        """Return the user that commands on this machine log in as."""
        return "admin" if self is Machine.BROKER else self.value
