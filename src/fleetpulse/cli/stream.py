"""`spark-stream`."""

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from fleetpulse.cli.console import (
    ConfigOption,
    counts,
    print_json,
    settings_of,
    speaker,
    stop_on_signals,
)
from fleetpulse.cli.consume import FromBeginningOption, UntilIdleOption
from fleetpulse.cli.spark import ConfOption, MasterOption, pair
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.position import OnGap

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleetpulse.edges.spark.progress import StreamProgress

_NAME = "spark-stream"
_LINE_EVERY_S = 10.0


def spark_stream(  # noqa: PLR0913  one argument an option
    *,
    until_idle: UntilIdleOption = None,
    from_beginning: FromBeginningOption = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write the two window files at the end.")
    ] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write windows.parquet, a folder for each batch.")
    ] = False,
    on_gap: Annotated[
        OnGap,
        typer.Option(help="When a topic lost messages that were not read yet: stop or go on."),
    ] = OnGap.STOP,
    master: MasterOption = None,
    conf: ConfOption = None,
    config: ConfigOption = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print each batch, and the result, as a JSON object a line."),
    ] = False,
) -> None:
    """Turn the four topics into live windows with alerts, in the windows topic.

    Runs until stopped, and goes on where the last run ended.
    """
    settings = settings_of(config).settings
    try:
        # A role starts alone.
        from fleetpulse.roles.analyze import SparkOptions  # noqa: PLC0415
        from fleetpulse.roles.stream import StreamOptions, stream  # noqa: PLC0415
    except ModuleNotFoundError as err:
        raise UsageError(
            f"{err.name} is not installed; install it with: pip install 'fleetpulse[spark]'"
        ) from err

    options = StreamOptions(from_beginning, until_idle, csv, parquet, on_gap is OnGap.CONTINUE)
    spark = SparkOptions(
        os.environ, master=master, conf=dict(pair("--conf", text) for text in conf or [])
    )
    say = speaker(_NAME)
    with stop_on_signals() as stop:
        summary = stream(
            settings,
            options,
            spark,
            stop=stop,
            say=say,
            report=_as_json if as_json else _as_lines(say),
        )
    if as_json:
        print_json(
            {
                "event": "end",
                "windows": dict(summary.windows),
                "refused": dict(summary.refused),
                "batches": summary.batches,
                "messages": summary.messages,
                "files": [str(path) for path in summary.files],
                "is_caught_up": summary.is_caught_up,
                "seconds": round(summary.seconds, 3),
            }
        )
        return
    typer.echo(
        f"{'all caught up' if summary.is_caught_up else 'stopped'}: "
        f"{sum(summary.windows.values()):,} windows from {summary.messages:,} messages in this run"
        f" ({counts(summary.windows)})"
    )
    if summary.refused:
        typer.echo(f"refused: {counts(summary.refused)}")
    for path in summary.files:
        typer.echo(f"wrote {path}")


def _as_json(progress: "StreamProgress") -> None:
    print_json(
        {
            "event": "batch",
            "batch": progress.batch_id,
            "messages": progress.messages,
            "lag": progress.lag,
            "watermark_delay_s": progress.watermark_delay_s,
            "dropped_rows": progress.dropped_rows,
            "state_rows": progress.state_rows,
            "seconds": progress.seconds,
        }
    )


def _as_lines(say: "Callable[[str], None]") -> "Callable[[StreamProgress], None]":
    """Return a reporter of every batch that dropped rows, and of the others now and then."""
    messages = 0
    next_line_s = 0.0

    def report(progress: "StreamProgress") -> None:
        nonlocal messages, next_line_s
        messages += progress.messages
        if not progress.dropped_rows and time.monotonic() < next_line_s:
            return
        delay = progress.watermark_delay_s
        say(
            f"batch {progress.batch_id}: {messages:,} messages, lag {progress.lag:,}, watermark "
            + ("not there yet" if delay is None else f"{delay:.1f} s behind")
            + f", {progress.state_rows:,} open groups, {progress.dropped_rows:,} rows dropped"
        )
        messages, next_line_s = 0, time.monotonic() + _LINE_EVERY_S

    return report
