"""`spark-job1`, `spark-job2`, and both in one Spark: `spark-jobs`."""

import os
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.models import OptionInfo

from fleetpulse.cli.console import (
    ConfigOption,
    JsonOption,
    counts,
    print_json,
    settings_of,
    speaker,
    stop_on_signals,
)
from fleetpulse.codec.windows import window_cells
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU_MEM, FAMILIES, NET_DISK, Family

if TYPE_CHECKING:
    from fleetpulse.roles.analyze import AnalyzeSummary

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", readable=False, help="File to write. [default: by the settings]"
    ),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="METRIC=N", help="Another limit than the settings'; repeatable."
    ),
]
MasterOption = Annotated[
    str | None,
    typer.Option("--master", metavar="URL", help="Spark master. [default: this machine]"),
]
ConfOption = Annotated[
    list[str] | None,
    typer.Option("--conf", metavar="KEY=VALUE", help="Any Spark setting; repeatable."),
]


def _input(name: str, topic: str) -> OptionInfo:
    option: OptionInfo = typer.Option(
        f"--{name}",
        metavar="FILE",
        readable=False,
        help=f"CSV of the {topic} records. [default: {name}_data.csv in output_dir]",
    )
    return option


def spark_job1(
    *,
    cpu: Annotated[Path | None, _input("cpu", "CPU")] = None,
    mem: Annotated[Path | None, _input("mem", "memory")] = None,
    out: OutOption = None,
    limit: LimitOption = None,
    master: MasterOption = None,
    conf: ConfOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make CPU_MEM.csv, windows of mean CPU and mean memory with alerts, from the two CSV files."""
    _run([(CPU_MEM, (cpu, mem), out)], limit, master, conf, config, as_json=as_json)


def spark_job2(
    *,
    net: Annotated[Path | None, _input("net", "network")] = None,
    disk: Annotated[Path | None, _input("disk", "disk")] = None,
    out: OutOption = None,
    limit: LimitOption = None,
    master: MasterOption = None,
    conf: ConfOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make NET_DISK.csv, windows of the highest traffic and disk operations with alerts."""
    _run([(NET_DISK, (net, disk), out)], limit, master, conf, config, as_json=as_json)


def spark_jobs(
    *,
    limit: LimitOption = None,
    master: MasterOption = None,
    conf: ConfOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run both jobs, one after the other in one Spark, on the files of the settings."""
    both = [(family, (None, None), None) for family in FAMILIES]
    _run(both, limit, master, conf, config, as_json=as_json)


def _run(
    jobs: Sequence[tuple[Family, tuple[Path | None, Path | None], Path | None]],
    limit: list[str] | None,
    master: str | None,
    conf: list[str] | None,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    settings = settings_of(config, _limits(limit or [])).settings
    try:
        # A role starts alone.
        from fleetpulse.roles.analyze import SparkOptions, analyze  # noqa: PLC0415
        from fleetpulse.roles.job import Job  # noqa: PLC0415
    except ModuleNotFoundError as err:
        raise UsageError(
            f"{err.name} is not installed; install it with: pip install 'fleetpulse[spark]'"
        ) from err

    spark = SparkOptions(
        os.environ, master=master, conf=dict(pair("--conf", text) for text in conf or [])
    )
    with stop_on_signals() as stop:
        say = speaker("spark-jobs" if len(jobs) > 1 else _NAMES[jobs[0][0]])
        summaries = analyze(settings, [Job(*job) for job in jobs], spark, stop, say)
    if as_json:
        print_json({one.family.name: _fields(one, settings.time.tz) for one in summaries})
        return
    for one in summaries:
        typer.echo(f"{one.out}: {one.windows.rows:,} windows in {one.seconds:.1f} s")
        typer.echo(f"  alerts: {counts(one.windows.alerts)}")
        if one.rejects:
            typer.echo(f"  rejected: {counts(one.rejects)}; see {one.rejects_path}")


_NAMES = {CPU_MEM: "spark-job1", NET_DISK: "spark-job2"}


def _limits(texts: Sequence[str]) -> dict[str, str]:
    paths = {
        metric.name: f"rules.{family.name}.{metric.name}.limit"
        for family in FAMILIES
        for metric in family.metrics
    }
    limits = {}
    for text in texts:
        name, value = pair("--limit", text)
        if name not in paths:
            raise UsageError(
                f"--limit {text}: wanted one of {', '.join(paths)}, such as cpu_pct=85"
            )
        limits[paths[name]] = value
    return limits


def pair(option: str, text: str) -> tuple[str, str]:
    """Return the two sides of KEY=VALUE; UsageError naming the option where it is none."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UsageError(f"{option} {text}: wanted KEY=VALUE")
    return name, value


def _fields(summary: "AnalyzeSummary", zone: tzinfo) -> Mapping[str, Any]:
    return {
        "out": str(summary.out),
        "samples": dict(summary.samples),
        "rejects": dict(summary.rejects),
        "rows": summary.windows.rows,
        "alerts": dict(summary.windows.alerts),
        "worst": [
            {
                **window_cells(one.row, zone),
                "limits_met": one.limits_met,
                "ratio": round(float(one.ratio), 6),
            }
            for one in summary.windows.worst
        ],
        "seconds": round(summary.seconds, 3),
    }
