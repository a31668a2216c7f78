"""`analyze cpu-mem` and `analyze net-disk`: the batch jobs on either engine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fleetpulse.cli.console import ConfigOption, JsonOption
from fleetpulse.cli.spark import (
    LimitOption,
    OutOption,
    SparkArguments,
    input_option,
    run_jobs,
)
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU_MEM, NET_DISK
from fleetpulse.roles.job import Job

app = typer.Typer(
    help="Make a window file from the consumers' CSV files.",
    no_args_is_help=True,
)


class BatchEngine(StrEnum):
    """What computes the windows; both give the same bytes."""

    EMBEDDED = "embedded"
    SPARK = "spark"


EngineOption = Annotated[
    BatchEngine,
    typer.Option("--engine", help="What computes the windows; both give the same file."),
]
MasterOption = Annotated[
    str | None,
    typer.Option(
        "--master", metavar="URL", help="Master of --engine spark. [default: this machine]"
    ),
]
ConfOption = Annotated[
    list[str] | None,
    typer.Option("--conf", metavar="KEY=VALUE", help="Any setting of --engine spark; repeatable."),
]


@app.command("cpu-mem")
def cpu_mem(  # noqa: PLR0913  one argument an option
    *,
    cpu: Annotated[Path | None, input_option("cpu", "CPU")] = None,
    mem: Annotated[Path | None, input_option("mem", "memory")] = None,
    out: OutOption = None,
    engine: EngineOption = BatchEngine.EMBEDDED,
    limit: LimitOption = None,
    master: MasterOption = None,
    conf: ConfOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make CPU_MEM.csv from two CSV files.

    Windows of mean CPU and mean memory, with alerts.
    """
    job = Job("analyze-cpu-mem", CPU_MEM, (cpu, mem), out)
    run_jobs([job], _spark(engine, master, conf), limit, config, as_json=as_json)


@app.command("net-disk")
def net_disk(  # noqa: PLR0913  one argument an option
    *,
    net: Annotated[Path | None, input_option("net", "network")] = None,
    disk: Annotated[Path | None, input_option("disk", "disk")] = None,
    out: OutOption = None,
    engine: EngineOption = BatchEngine.EMBEDDED,
    limit: LimitOption = None,
    master: MasterOption = None,
    conf: ConfOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make NET_DISK.csv from two CSV files.

    Windows of the highest traffic and disk operations, with alerts.
    """
    job = Job("analyze-net-disk", NET_DISK, (net, disk), out)
    run_jobs([job], _spark(engine, master, conf), limit, config, as_json=as_json)


def _spark(
    engine: BatchEngine, master: str | None, conf: list[str] | None
) -> SparkArguments | None:
    if engine is BatchEngine.SPARK:
        return SparkArguments(master, conf)
    for option, given in (("--master", master), ("--conf", conf)):
        if given:
            raise UsageError(f"{option} is for Spark; add --engine spark or leave it out")
    return None
