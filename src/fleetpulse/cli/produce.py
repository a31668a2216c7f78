"""`producer` and `simulate`."""

import sys
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetpulse.cli.console import (
    ConfigOption,
    JsonOption,
    counts,
    duration_option,
    print_json,
    progress_on,
    settings_of,
    speaker,
    stop_on_signals,
)
from fleetpulse.config import Settings
from fleetpulse.domain.clock import EPOCH, TimeReader, iso_text
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.reject import Reject
from fleetpulse.domain.replay import Replay, Times, speed_of

if TYPE_CHECKING:
    from fleetpulse.roles.source import Source

ServersOption = Annotated[int, typer.Option("--servers", help="Simulated servers.")]
IntervalOption = Annotated[
    float, duration_option("--interval", "Time between two simulated samples of a server.", "1s")
]
SeedOption = Annotated[
    int, typer.Option("--seed", help="The same seed gives the same simulated fleet.")
]
StartOption = Annotated[
    str | None,
    typer.Option("--start", metavar="ISO", help="First simulated instant, UTC. [default: now]"),
]


def producer(  # noqa: PLR0913  one argument an option
    *,
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset", metavar="FILE", readable=False, help="Source: a CSV file of samples."
        ),
    ] = None,
    run: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Name of this sending of the dataset: with the same name it goes on where it "
            "ended, with another one all is sent again.",
        ),
    ] = "default",
    live: Annotated[
        bool, typer.Option("--live", help="Source: this machine, one sample a second.")
    ] = False,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Source: a made-up fleet with incidents.")
    ] = False,
    speed: Annotated[
        str | None,
        typer.Option(
            metavar="SPEED",
            help="Event time against wall time: 1x, 60x, max. "
            "[default: max for a dataset with its own times, else 1x]",
        ),
    ] = None,
    times: Annotated[
        Times,
        typer.Option(help="Keep the timestamps, or shift them so that the first one is now."),
    ] = Times.ORIGINAL,
    limit: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Stop after N samples.")
    ] = None,
    duration: Annotated[
        float | None,
        duration_option("--duration", "Stop this far, in event time, after the first."),
    ] = None,
    server_id: Annotated[
        str | None, typer.Option(help="With --live: the name to send. [default: the host's]")
    ] = None,
    servers: ServersOption = 20,
    interval: IntervalOption = 1.0,
    seed: SeedOption = 1,
    start: StartOption = None,
    incidents: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", readable=False, help="With --simulate: write the known incidents there."
        ),
    ] = None,
    connect_timeout: Annotated[
        float,
        duration_option("--connect-timeout", "Give up when no broker answers this long.", "30s"),
    ] = 30.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send samples to the four topics, from a dataset, from this machine, or from a simulation."""
    from fleetpulse.roles.produce import produce  # noqa: PLC0415  a role starts alone
    from fleetpulse.roles.simulate import Fleet  # noqa: PLC0415
    from fleetpulse.roles.source import Dataset, Live, Simulated  # noqa: PLC0415

    if [dataset is not None, live, simulate].count(True) != 1:
        raise UsageError("wanted one source: --dataset FILE, --live or --simulate")
    source: Source = Live(server_id)
    if dataset is not None:
        source = Dataset(dataset, run)
    elif simulate:
        source = Simulated(Fleet(servers, interval, seed, _instant_ms(start)), incidents)
    replay = Replay(speed_of(speed) if speed else None, times, limit, duration)
    settings = _settings_with_broker(config)
    with stop_on_signals() as stop, progress_on("samples") as progress:
        summary = produce(
            settings,
            source,
            replay,
            stop=stop,
            say=speaker("producer"),
            progress=progress,
            connect_timeout_s=connect_timeout,
        )
    if as_json:
        print_json(
            {
                "messages": dict(summary.messages),
                "samples": summary.samples,
                "rejects": dict(summary.rejects),
                "failures": dict(summary.failures),
                "seconds": round(summary.seconds, 3),
            }
        )
    else:
        sent = sum(summary.messages.values())
        rate = sent / summary.seconds if summary.seconds else 0.0
        typer.echo(
            f"{summary.samples} samples, {sent} messages acknowledged "
            f"in {summary.seconds:.1f} s ({rate:,.0f}/s): {counts(summary.messages)}"
        )
        if summary.rejects:
            rejects = settings.output_dir / "rejects.producer.jsonl"
            typer.echo(f"rejected: {counts(summary.rejects)}; see {rejects}")
        if summary.failures:
            typer.echo(f"not delivered: {counts(summary.failures)}")
    if summary.error is not None:
        raise summary.error


def simulate(  # noqa: PLR0913  one argument an option
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", readable=False, help="Dataset file to write.")
    ],
    incidents: Annotated[
        Path,
        typer.Option(
            "--incidents", metavar="FILE", readable=False, help="File of the known incidents."
        ),
    ],
    servers: ServersOption = 20,
    interval: IntervalOption = 1.0,
    duration: Annotated[
        float, duration_option("--duration", "Length of the dataset.", "30m")
    ] = 1800.0,
    seed: SeedOption = 1,
    start: StartOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset file of a simulated fleet, and the incidents that it holds."""
    from fleetpulse.roles.simulate import Fleet  # noqa: PLC0415  a role starts alone
    from fleetpulse.roles.simulate import simulate as write_files  # noqa: PLC0415

    settings = settings_of(config).settings
    plan = Fleet(servers, interval, seed, _instant_ms(start)).plan(settings, duration)
    with stop_on_signals() as stop:
        summary = write_files(plan, out, incidents, stop)
    if as_json:
        print_json({"samples": summary.samples, "incidents": dict(summary.incidents)})
        return
    typer.echo(
        f"{out}: {summary.samples} samples of {servers} servers from {iso_text(plan.start_ms)}"
    )
    typer.echo(f"{incidents}: {counts(summary.incidents) or 'no incident'}")


def _settings_with_broker(config: Path | None) -> Settings:
    settings = settings_of(config).settings
    if settings.hosts.broker is None and sys.stdin.isatty():
        address = typer.prompt("Broker address (its ZeroTier or LAN address)")
        settings = settings_of(config, {"hosts.broker": address}).settings
    return settings


def _instant_ms(start: str | None) -> int | None:
    if start is None:
        return None
    instant_ms = TimeReader(UTC, EPOCH.date()).read(start)
    if isinstance(instant_ms, Reject):
        raise UsageError(f"--start: {instant_ms.reason}")
    return instant_ms
