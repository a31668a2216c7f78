"""`demo`: the whole pipeline, and a page of text that says what came out."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetpulse.cli.console import (
    ConfigOption,
    counts,
    duration_option,
    settings_of,
    speaker,
    stop_on_signals,
)
from fleetpulse.codec.table import record_file_name
from fleetpulse.config import Settings
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import FAMILIES, TOPICS

if TYPE_CHECKING:
    from fleetpulse.roles.demo import DemoReport

SAMPLE = Path("data/sample_data.csv")
# The widest table, with both values of a window and its label, fits into this.
_LEAST_WIDTH = 105


def demo(
    *,
    dataset: Annotated[
        Path,
        typer.Option(
            "--dataset", metavar="FILE", readable=False, help="CSV file of samples to send."
        ),
    ] = SAMPLE,
    live: Annotated[
        float | None,
        duration_option("--live", "Send this machine's own metrics this long instead."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            readable=False,
            help="Folder of the demo; an earlier demo in it is removed.",
        ),
    ] = Path("output/demo"),
    ui: Annotated[
        bool, typer.Option("--ui/--no-ui", help="There is no page to open yet: no effect.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Run the whole pipeline on this machine, each role a process, and show the results."""
    from fleetpulse.roles.demo import demo as run_demo  # noqa: PLC0415  a role starts alone

    del ui
    if live is None and not dataset.is_file():
        raise UsageError(f"{dataset}: there is no such file; name one with --dataset FILE")
    source = ["--dataset", str(dataset)]
    if live is not None:
        source = ["--live", "--duration", f"{live:g}s"]
    settings = settings_of(config).settings
    with stop_on_signals() as stop:
        report = run_demo(
            settings,
            config=config,
            source=source,
            output=output,
            stop=stop,
            say=speaker("demo"),
            hear=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
        )
    _show(settings, report)


def _show(settings: Settings, report: "DemoReport") -> None:
    console = Console(highlight=False)
    console.width = max(console.width, _LEAST_WIDTH)
    table = _table("Records", "topic", "messages", "file", "rows")
    rows = _added(one["rows"] for one in report.consumed)
    for topic in TOPICS:
        name, file = settings.topics.name(topic), record_file_name(topic)
        sent = report.produced["messages"].get(name, 0)
        table.add_row(name, f"{sent:,}", file, f"{rows[file]:,}")
    console.print(table)
    for role, result in _results(report):
        if result["rejects"]:
            console.print(f"rejected by {role}: {counts(result['rejects'])}")

    families = [report.analyzed[family.name] for family in FAMILIES]
    table = _table("Windows", "file", "windows", "with an alert")
    for one in families:
        table.add_row(Path(one["out"]).name, f"{one['rows']:,}", f"{sum(one['alerts'].values()):,}")
    console.print(table)

    table = _table("Alerts", "label", "windows")
    for label, count in sorted(_added(one["alerts"] for one in families).items()):
        table.add_row(Text(label), f"{count:,}")
    console.print(table)

    table = _table("Worst windows", "server", "window", "values", "alert")
    worst = sorted((row for one in families for row in one["worst"]), key=_severity)
    for row in worst[:5]:
        span = " - ".join(
            f"{datetime.fromisoformat(row[end]):%H:%M:%S}" for end in ("start", "end")
        )
        values = ", ".join(f"{name} {value}" for name, value in row["values"].items())
        table.add_row(row["server_id"], span, values, Text(row["alert"]))
    console.print(table)

    table = _table("Stages", "stage", "seconds")
    for stage, seconds in report.stages.items():
        table.add_row(stage, f"{seconds:.1f}")
    table.add_row("in all", f"{report.seconds:.1f}")
    console.print(table)
    console.print(f"Files: {report.output}/")


def _results(report: "DemoReport") -> list[tuple[str, Mapping[str, Any]]]:
    consumers = zip(("consumer1", "consumer2"), report.consumed, strict=True)
    return [("producer", report.produced), *consumers]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        is_number = column in ("messages", "rows", "rejects", "windows", "with an alert", "seconds")
        table.add_column(column, justify="right" if is_number and number else "left", no_wrap=True)
    return table


def _added(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


def _severity(row: Mapping[str, Any]) -> tuple[int, float, str, str]:
    return (-row["limits_met"], -row["ratio"], row["start"], row["server_id"])
