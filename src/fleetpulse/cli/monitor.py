"""`monitor`."""

import sys
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Annotated

import typer

from fleetpulse.cli.console import (
    ConfigOption,
    collect_seldom,
    counts,
    print_json,
    settings_of,
    speaker,
    stop_on_signals,
)
from fleetpulse.cli.consume import (
    ConnectOption,
    FromBeginningOption,
    OnGapOption,
    UntilIdleOption,
)
from fleetpulse.domain.clock import clock_text, iso_text
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.position import OnGap

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleetpulse.domain.aggregate import WindowRow

_NAME = "monitor"


def monitor(  # noqa: PLR0913  one argument an option
    *,
    from_beginning: FromBeginningOption = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin the first start with messages dated then or later: an ISO time, or a "
            "duration such as 2h before now.",
        ),
    ] = None,
    until_idle: UntilIdleOption = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Append the windows to the two window files.")
    ] = False,
    topic: Annotated[
        bool, typer.Option("--topic/--no-topic", help="Send the windows to their topic.")
    ] = True,
    connect_timeout: ConnectOption = 30.0,
    on_gap: OnGapOption = OnGap.STOP,
    config: ConfigOption = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print each alert, and the result, as a JSON object a line."),
    ] = False,
) -> None:
    """Watch the four topics and print alerts as they happen.

    Runs until stopped, and goes on where the last run ended.
    """
    settings = settings_of(config).settings
    if from_beginning and since is not None:
        raise UsageError("--from-beginning and --since were both given, wanted one of them")
    # A role starts alone.
    from fleetpulse.roles.monitor import MonitorOptions, instant_since  # noqa: PLC0415
    from fleetpulse.roles.monitor import monitor as run  # noqa: PLC0415

    since_ms = 0 if from_beginning else None
    if since is not None:
        since_ms = instant_since(since, settings.time.tz)
    options = MonitorOptions(since_ms, until_idle, csv, topic, on_gap, connect_timeout)
    say = speaker(_NAME)
    collect_seldom()
    with stop_on_signals() as stop:
        told = _JsonLines() if as_json else _Lines(settings.time.tz, say)
        summary = run(settings, options, stop=stop, say=say, told=told)
    if as_json:
        print_json(
            {
                "event": "end",
                "messages": summary.messages,
                "windows": dict(summary.windows),
                "alerts": dict(summary.alerts),
                "refused": dict(summary.refused),
                "lost_offsets": summary.lost_offsets,
                "is_caught_up": summary.is_caught_up,
                "seconds": round(summary.seconds, 3),
            }
        )
        return
    typer.echo(
        f"{'all caught up' if summary.is_caught_up else 'stopped'}: "
        f"{sum(summary.windows.values()):,} windows from {summary.messages:,} messages in this run"
        + (f" ({counts(summary.windows)})" if summary.windows else "")
    )
    if summary.alerts:
        typer.echo(f"alerts: {counts(summary.alerts)}")
    if summary.refused:
        typer.echo(f"refused: {counts(summary.refused)}")


class _Lines:
    """Alerts for people, one line each."""

    def __init__(self, zone: tzinfo, say: "Callable[[str], None]") -> None:
        self._zone = zone
        self._say = say

    def reading(self, seconds: float) -> None:
        self._say(f"first message after {seconds:.1f} s")

    def alerts(
        self, rows: "Iterable[WindowRow]", values: Sequence[bytes], *, is_again: bool
    ) -> None:
        if not values:
            return
        again = " (perhaps told before)" if is_again else ""
        text = "".join(f"{self._line(row)}{again}\n" for row in rows)
        sys.stdout.write(text)
        sys.stdout.flush()

    def clock_ahead(self, server_id: str, ahead_s: float) -> None:
        typer.echo(f"{server_id}  Clock is {ahead_s:,.0f} s ahead: its records are set aside")

    def _line(self, row: "WindowRow") -> str:
        numbers = ", ".join(
            f"{metric.name} {number // 100}.{number % 100:02d} {metric.unit}"
            for metric, number in zip(row.family.metrics, row.hundredths, strict=True)
            if number is not None
        )
        start, end = iso_text(row.start_ms, self._zone), clock_text(row.end_ms, self._zone)
        return f"{start} to {end}  {row.server_id}  {row.alert}: {numbers}"


class _JsonLines:
    """The same for scripts: an alert is the message of the windows topic, as an event."""

    def reading(self, seconds: float) -> None:
        print_json({"event": "reading", "seconds": round(seconds, 3)})

    def alerts(
        self, rows: "Iterable[WindowRow]", values: Sequence[bytes], *, is_again: bool
    ) -> None:
        del rows
        head = b'{"event":"alert","again":' + (b"true," if is_again else b"false,")
        # Each value is an object: its fields follow ours.
        text = b"".join(head + value[1:] + b"\n" for value in values)
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()

    def clock_ahead(self, server_id: str, ahead_s: float) -> None:
        event = {"event": "clock_ahead", "server_id": server_id, "seconds": round(ahead_s, 3)}
        print_json(event)
