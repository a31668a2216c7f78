"""A role pauses where too much of its input is bad: a disk must not be filled with rejects."""

from collections.abc import Callable
from threading import Event
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError

_ALARM_EVERY_S: Final = 60.0


def reject_alarm(settings: Settings, rejects_file: str, tripped: str) -> str:
    """Return what to say where the reject limit was reached, `tripped` says how."""
    return (
        f"paused: {tripped}; see {settings.output_dir / rejects_file} for what is wrong and mend "
        "its sender, then start this again: it goes on behind them (limits: "
        f"rejects.max_in_a_row {settings.rejects.max_in_a_row}, "
        f"rejects.max_ratio {settings.rejects.max_ratio:g})"
    )


def pause(alarm: str, stop: Event, say: Callable[[str], None], *, is_to_end: bool) -> None:
    """Say the alarm every minute until the stop.

    A run that is to end by itself raises it as FleetpulseError.
    """
    if is_to_end:
        raise FleetpulseError(alarm)
    say(alarm)
    while not stop.wait(_ALARM_EVERY_S):
        say(alarm)
