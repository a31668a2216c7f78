"""`topics create | list | check`."""

from typing import Annotated

import typer

from fleetpulse.cli.console import (
    ConfigOption,
    JsonOption,
    duration_option,
    print_json,
    settings_of,
    speaker,
)

app = typer.Typer(help="Make the four topics, show and check them.", no_args_is_help=True)

ConnectOption = Annotated[
    float,
    duration_option("--connect-timeout", "Give up when no broker answers this long.", "10s"),
]


@app.command()
def create(*, connect_timeout: ConnectOption = 10.0, config: ConfigOption = None) -> None:
    """Make the topics that are missing; existing ones stay as they are."""
    from fleetpulse.roles.topics import create as create_wanted  # noqa: PLC0415  starts alone

    settings = settings_of(config).settings
    made = create_wanted(settings, connect_timeout, speaker("topics"))
    for name, is_new in made.items():
        typer.echo(f"{name}: {'made' if is_new else 'was there already'}")


@app.command("list")
def list_found(
    *,
    connect_timeout: ConnectOption = 10.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every topic of the broker with its partitions, replicas and retention."""
    from fleetpulse.roles.topics import found  # noqa: PLC0415  starts alone

    topics = found(settings_of(config).settings, connect_timeout, speaker("topics"))
    if as_json:
        print_json(
            {
                one.name: {
                    "partitions": one.partitions,
                    "replication_factor": one.replication_factor,
                    "retention_ms": int(one.config["retention.ms"]),
                }
                for one in topics
            }
        )
        return
    for one in topics:
        retention_ms = int(one.config["retention.ms"])
        kept = "for ever" if retention_ms < 0 else f"{retention_ms / 3_600_000:g} h"
        typer.echo(
            f"{one.name}: partitions {one.partitions}, "
            f"replication {one.replication_factor}, retention {kept}"
        )
    if not topics:
        typer.echo("no topics; make them with: fleetpulse topics create")


@app.command()
def check(*, connect_timeout: ConnectOption = 10.0, config: ConfigOption = None) -> None:
    """Compare the topics with the settings; exit 1 names each difference."""
    from fleetpulse.roles.topics import check as check_wanted  # noqa: PLC0415  starts alone

    differences = check_wanted(settings_of(config).settings, connect_timeout, speaker("topics"))
    for one in differences:
        if one.found is None:
            typer.echo(f"{one.name}: is missing; make it with: fleetpulse topics create")
        else:
            typer.echo(f"{one.name}: {one.key} is {one.found}, the settings want {one.wanted}")
    if differences:
        raise typer.Exit(1)
    typer.echo("the four topics are as the settings want them")
