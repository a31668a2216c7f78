"""`consumer1` and `consumer2`, and the options of all roles that read topics."""

from pathlib import Path
from typing import Annotated

import typer

from fleetpulse.cli.console import (
    ConfigOption,
    JsonOption,
    collect_seldom,
    counts,
    duration_option,
    print_json,
    settings_of,
    speaker,
    stop_on_signals,
)
from fleetpulse.domain.metric import CPU_MEM, NET_DISK, Family
from fleetpulse.domain.position import OnGap
from fleetpulse.domain.share import Share

UntilIdleOption = Annotated[
    float | None,
    duration_option("--until-idle", "End when all is read and nothing came this long."),
]
FromBeginningOption = Annotated[
    bool,
    typer.Option(
        "--from-beginning", help="Begin the first start with the oldest messages, not with new."
    ),
]
ConnectOption = Annotated[
    float,
    duration_option("--connect-timeout", "Give up when no broker answers this long.", "30s"),
]
OnGapOption = Annotated[
    OnGap,
    typer.Option(
        help="When a topic lost messages that were not read yet: stop, or count and go on."
    ),
]


def _share(text: str) -> Share:
    try:
        return Share.of(text)
    except ValueError as err:
        raise typer.BadParameter(str(err)) from err


PartitionsOption = Annotated[
    Share | None,
    typer.Option(
        "--partitions",
        parser=_share,
        metavar="FIRST-LAST",
        help="Read these partitions alone, into files of their own such as cpu_data.p0-3.csv, "
        "beside other consumers. [default: all]",
        show_default=False,
    ),
]


def consumer1(
    *,
    until_idle: UntilIdleOption = None,
    connect_timeout: ConnectOption = 30.0,
    on_gap: OnGapOption = OnGap.STOP,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the CPU and memory topics to CSV.

    Each message becomes a row of cpu_data.csv or mem_data.csv, or a reject, exactly once. Runs
    until stopped.
    """
    _run(CPU_MEM, until_idle, connect_timeout, on_gap, partitions, config, as_json=as_json)


def consumer2(
    *,
    until_idle: UntilIdleOption = None,
    connect_timeout: ConnectOption = 30.0,
    on_gap: OnGapOption = OnGap.STOP,
    partitions: PartitionsOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the network and disk topics to CSV.

    Each message becomes a row of net_data.csv or disk_data.csv, or a reject, exactly once. Runs
    until stopped.
    """
    _run(NET_DISK, until_idle, connect_timeout, on_gap, partitions, config, as_json=as_json)


def _run(
    family: Family,
    until_idle_s: float | None,
    connect_timeout_s: float,
    on_gap: OnGap,
    share: Share | None,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    from fleetpulse.roles.consume import CONSUMER_NAMES, consume  # noqa: PLC0415  starts alone

    settings = settings_of(config).settings
    collect_seldom()
    with stop_on_signals() as stop:
        summary = consume(
            settings,
            family,
            stop=stop,
            say=speaker(CONSUMER_NAMES[family.name]),
            until_idle_s=until_idle_s,
            connect_timeout_s=connect_timeout_s,
            on_gap=on_gap,
            share=share,
        )
    if as_json:
        print_json(
            {
                "rows": dict(summary.rows),
                "total_rows": dict(summary.total_rows),
                "rejects": dict(summary.rejects),
                "total_rejects": dict(summary.total_rejects),
                "lost_offsets": summary.lost_offsets,
                "is_caught_up": summary.is_caught_up,
                "seconds": round(summary.seconds, 3),
            }
        )
        return
    total = sum(summary.total_rows.values())
    typer.echo(
        f"{'all caught up' if summary.is_caught_up else 'stopped'}: {total} rows "
        f"({sum(summary.rows.values())} in this run) in {settings.output_dir}: "
        f"{counts(summary.total_rows)}"
    )
    if summary.total_rejects:
        typer.echo(f"rejected: {counts(summary.total_rejects)}")
