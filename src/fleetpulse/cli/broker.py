"""`broker start | stop | status`, and `setup`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fleetpulse.cli.console import (
    ConfigOption,
    JsonOption,
    print_json,
    settings_of,
    speaker,
    stop_on_signals,
)

app = typer.Typer(help="Run a real Kafka broker on this machine.", no_args_is_help=True)

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", readable=False, help="Its folder. [default: broker in output_dir]"
    ),
]


@app.command()
def start(
    *,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay with it; it ends with this command.")
    ] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Start the broker on hosts.broker and broker.port, and return once it answers."""
    from fleetpulse.roles.broker import data_dir, run_broker, start_broker  # noqa: PLC0415
    from fleetpulse.roles.broker import status as broker_status  # noqa: PLC0415

    settings = settings_of(config).settings
    folder = data_dir(settings, data)
    if foreground:
        with stop_on_signals() as stop:
            run_broker(settings, folder, os.environ, stop, speaker("broker"))
        return
    if not start_broker(settings, folder, os.environ, speaker("broker")):
        typer.echo("it was running already:")
    found = broker_status(settings, folder)
    typer.echo(f"broker {found.address} (process {found.pid}) answers; its log is {found.log_path}")


@app.command("config")
def show_config(
    *,
    advertise_overlay: Annotated[
        bool,
        typer.Option(
            "--advertise-overlay",
            help="Write this machine's overlay address into the settings file as hosts.broker.",
        ),
    ] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Show where the broker will listen, and what it tells its clients."""
    from fleetpulse.config import DEFAULT_FILE  # noqa: PLC0415
    from fleetpulse.roles.broker import advertise_overlay as write_overlay  # noqa: PLC0415
    from fleetpulse.roles.broker import data_dir, listeners  # noqa: PLC0415

    settings = settings_of(config).settings
    if advertise_overlay:
        file = config or DEFAULT_FILE
        address = write_overlay(settings, file)
        typer.echo(f"{file}: hosts.broker is {address}; the other machines need the same")
        settings = settings_of(config).settings
    for name, value in listeners(settings, speaker("broker")):
        typer.echo(f"{name:<12}  {value}")
    folder = data_dir(settings, data)
    typer.echo(f"Its folder is {folder}. A broker that runs takes this after: broker stop, start")


@app.command()
def stop(data: DataOption = None, config: ConfigOption = None) -> None:
    """Stop the broker of the folder; acknowledged messages stay in it."""
    from fleetpulse.edges.kafka.broker import stop as stop_broker  # noqa: PLC0415
    from fleetpulse.roles.broker import data_dir  # noqa: PLC0415

    folder = data_dir(settings_of(config).settings, data)
    typer.echo("broker stopped" if stop_broker(folder) else f"no broker of {folder} was running")


@app.command()
def status(
    *, data: DataOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Say whether the broker of the folder runs and answers; exit 1 when it does not."""
    from fleetpulse.roles.broker import data_dir  # noqa: PLC0415
    from fleetpulse.roles.broker import status as broker_status  # noqa: PLC0415

    settings = settings_of(config).settings
    found = broker_status(settings, data_dir(settings, data))
    if as_json:
        print_json({"pid": found.pid, "address": found.address, "is_answering": found.is_answering})
    elif found.pid is None:
        typer.echo(f"no broker of {found.data_dir} runs")
    else:
        state = "answers" if found.is_answering else f"does not answer; see {found.log_path}"
        typer.echo(f"broker {found.address} (process {found.pid}) {state}")
    if not found.is_answering:
        raise typer.Exit(1)


def setup() -> None:
    """Find Java and fetch the pinned Kafka and Spark jars, so that later runs need no network."""
    from fleetpulse.roles.setup import prepare  # noqa: PLC0415  a role starts alone

    prepare(os.environ, speaker("setup"))
