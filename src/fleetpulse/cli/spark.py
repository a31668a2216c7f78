"""`spark-job1`, `spark-job2`, both in one Spark: `spark-jobs`; `analyze` is built of the same."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
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
from fleetpulse.config import Settings
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU_MEM, FAMILIES, NET_DISK
from fleetpulse.roles.job import Job

if TYPE_CHECKING:
    from fleetpulse.roles.analyze import AnalyzeSummary
    from fleetpulse.roles.intake import Interpreter

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", readable=False, help="File to write. [default: by the settings]"
    ),
]
_JOB_NAMES = ("spark-job1", "spark-job2")
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


@dataclass(frozen=True, slots=True)
class SparkArguments:
    """What a command was told of Spark."""

    master: str | None = None
    conf: Sequence[str] | None = None


def input_option(name: str, topic: str) -> OptionInfo:
    """Return the option of a job's input."""
    option: OptionInfo = typer.Option(
        f"--{name}",
        metavar="FILE",
        readable=False,
        help=f"CSV of the {topic} records. [default: {name}_data.csv in output_dir]",
    )
    return option


def spark_job1(
    *,
    cpu: Annotated[Path | None, input_option("cpu", "CPU")] = None,
    mem: Annotated[Path | None, input_option("mem", "memory")] = None,
    out: OutOption = None,
    limit: LimitOption = None,
    master: MasterOption = None,
    conf: ConfOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make CPU_MEM.csv, windows of mean CPU and mean memory with alerts, from the two CSV files."""
    job = Job("spark-job1", CPU_MEM, (cpu, mem), out)
    run_jobs([job], SparkArguments(master, conf), limit, config, as_json=as_json)


def spark_job2(
    *,
    net: Annotated[Path | None, input_option("net", "network")] = None,
    disk: Annotated[Path | None, input_option("disk", "disk")] = None,
    out: OutOption = None,
    limit: LimitOption = None,
    master: MasterOption = None,
    conf: ConfOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make NET_DISK.csv, windows of the highest traffic and disk operations with alerts."""
    job = Job("spark-job2", NET_DISK, (net, disk), out)
    run_jobs([job], SparkArguments(master, conf), limit, config, as_json=as_json)


def spark_jobs(
    *,
    limit: LimitOption = None,
    master: MasterOption = None,
    conf: ConfOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run both jobs, one after the other in one Spark, on the files of the settings."""
    both = [Job(name, family) for name, family in zip(_JOB_NAMES, FAMILIES, strict=True)]
    run_jobs(both, SparkArguments(master, conf), limit, config, as_json=as_json)


def run_jobs(
    jobs: Sequence[Job],
    spark: SparkArguments | None,
    limit: Sequence[str] | None,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    """Run jobs, in Spark or (None) in the embedded engine, and print what they did."""
    from fleetpulse.roles.analyze import analyze  # noqa: PLC0415  a role starts alone

    settings = settings_of(config, _limits(limit or [])).settings
    say = speaker("spark-jobs" if len(jobs) > 1 else jobs[0].name)
    with stop_on_signals() as stop, _interpreter(settings, spark, say) as interpreter:
        summaries = analyze(settings, jobs, interpreter, stop, say)
    if as_json:
        print_json({one.family.name: _fields(one, settings.time.tz) for one in summaries})
        return
    for one in summaries:
        typer.echo(f"{one.out}: {one.windows.rows:,} windows in {one.seconds:.1f} s")
        typer.echo(f"  alerts: {counts(one.windows.alerts)}")
        if one.rejects:
            typer.echo(f"  rejected: {counts(one.rejects)}; see {one.rejects_path}")


def _interpreter(
    settings: Settings, spark: SparkArguments | None, say: Callable[[str], None]
) -> "AbstractContextManager[Interpreter]":
    if spark is None:
        from fleetpulse.roles.analyze_embedded import EmbeddedInterpreter  # noqa: PLC0415

        return nullcontext(EmbeddedInterpreter(settings))
    try:
        from fleetpulse.roles.analyze import SparkOptions  # noqa: PLC0415
        from fleetpulse.roles.analyze_spark import spark_interpreter  # noqa: PLC0415
    except ModuleNotFoundError as err:
        raise UsageError(
            f"{err.name} is not installed; install it with: pip install 'fleetpulse[spark]'"
        ) from err
    conf = dict(pair("--conf", text) for text in spark.conf or [])
    return spark_interpreter(settings, SparkOptions(os.environ, spark.master, conf), say)


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
