import pytest

from fleetpulse.domain import errors
from fleetpulse.domain.errors import FleetpulseError


@pytest.mark.parametrize(
    ("error", "exit_code", "is_retriable"),
    [
        (errors.FleetpulseError, 1, False),
        (errors.UsageError, 2, False),
        (errors.ServiceUnreachable, 69, True),
        (errors.DiskError, 74, False),
        (errors.AlreadyRunning, 75, False),
        (errors.DamagedState, 78, False),
        (errors.DataChanged, 79, False),
    ],
)
def test_each_class_has_its_exit_code(
    error: type[FleetpulseError], exit_code: int, *, is_retriable: bool
) -> None:
    assert issubclass(error, FleetpulseError)
    assert (error.exit_code, error.retriable) == (exit_code, is_retriable)


def test_the_message_is_what_the_user_reads() -> None:
    assert str(errors.UsageError("config.yaml line 3: wanted a number")) == (
        "config.yaml line 3: wanted a number"
    )
