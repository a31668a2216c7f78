"""`deploy systemd`."""

from pathlib import PurePosixPath
from typing import Annotated

import typer

from fleetpulse.domain.role import Role
from fleetpulse.roles.deploy import Place, service_text, timer_text

app = typer.Typer(help="Print what runs a role as a service.", no_args_is_help=True)


@app.callback()
def _deploy() -> None:
    # With it, a lone command keeps its name.
    pass


@app.command()
def systemd(
    *,
    role: Annotated[Role, typer.Option(help="The role that the unit runs.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- ARGUMENTS", help="More for the role, such as: -- --live"),
    ] = None,
    user: Annotated[str, typer.Option(metavar="NAME", help="User that it runs under.")] = (
        "fleetpulse"
    ),
    app_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Folder in which make setup ran.")
    ] = "/opt/fleetpulse",
    config: Annotated[
        str, typer.Option(metavar="FILE", help="Settings file.")
    ] = "/etc/fleetpulse/config.yaml",
    data_dir: Annotated[
        str, typer.Option(metavar="DIR", help="The one folder that it writes: output_dir.")
    ] = "/var/lib/fleetpulse",
    network: Annotated[
        str | None,
        typer.Option(
            metavar="CIDR",
            help="Let it speak with this network, and with this machine, only. [default: all]",
        ),
    ] = None,
    timer: Annotated[
        bool, typer.Option("--timer", help="Print the timer of a Spark job instead.")
    ] = False,
) -> None:
    """Print a hardened systemd unit of a role; its first lines say where it goes."""
    place = Place(
        user, PurePosixPath(app_dir), PurePosixPath(config), PurePosixPath(data_dir), network
    )
    text = timer_text(role, place) if timer else service_text(role, place, arguments or [])
    typer.echo(text, nl=False)
