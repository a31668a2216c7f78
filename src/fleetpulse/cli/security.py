"""`security init | renew | show`."""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fleetpulse.cli.console import ConfigOption, JsonOption, print_json, settings_of
from fleetpulse.domain.machine import Machine

if TYPE_CHECKING:
    from fleetpulse.roles.security import Finding, MachineFolder

app = typer.Typer(
    help="Make certificates and passwords for the machines, renew and show them.",
    no_args_is_help=True,
)

FOLDER: Final = Path("security")
# The folder of the settings in a checkout in the home of whoever runs it.
_TARGET: Final = "fleetpulse/config"

FolderOption = Annotated[
    Path,
    typer.Option("--folder", metavar="DIR", readable=False, help="The security folder."),
]
DaysOption = Annotated[
    int,
    typer.Option("--days", min=1, max=3650, help="How long the certificates hold, in days."),
]


@app.command()
def init(
    *, folder: FolderOption = FOLDER, days: DaysOption = 365, config: ConfigOption = None
) -> None:
    """Make an authority, and for each machine a folder with its certificate, password, settings.

    The addresses come from hosts in the settings: set them first. A folder that is there already
    is never replaced (exit 2).
    """
    from fleetpulse.roles.security import init as make  # noqa: PLC0415  a role starts alone

    made = make(settings_of(config).settings, folder, days)
    typer.echo(f"{folder} is made; its certificates hold until {made[0].not_after:%Y-%m-%d}")
    typer.echo("copy to each machine its own folder, and nothing else:")
    for one in made:
        typer.echo(f"  {one.machine:<9}  {_folder_command(one)}")
    typer.echo("then, on the broker's machine: fleetpulse broker start")
    typer.echo(
        f"ca.key stays in {folder}: who has it can make certificates. Keep a copy of the folder "
        "where nobody else can read it"
    )


@app.command()
def renew(
    *,
    folder: FolderOption = FOLDER,
    role: Annotated[
        Machine | None, typer.Option("--role", help="This machine alone. [default: all]")
    ] = None,
    days: DaysOption = 365,
    passwords: Annotated[bool, typer.Option("--passwords", help="New passwords, too.")] = False,
) -> None:
    """Give the machines new keys and certificates of the same authority."""
    from fleetpulse.roles.security import renew as renew_all  # noqa: PLC0415  a role starts alone

    made = renew_all(folder, days, role, passwords=passwords)
    typer.echo(f"new certificates hold until {made[0].not_after:%Y-%m-%d}; copy to each machine:")
    for one in made:
        command = _password_command(one) if passwords else _identity_command(one)
        typer.echo(f"  {one.machine:<9}  {command}")
    if any(one.machine is Machine.BROKER for one in made):
        typer.echo(
            "then, on the broker's machine: fleetpulse broker start (one that runs goes on, and "
            "takes the new files)"
        )


@app.command()
def show(
    *,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            metavar="DIR",
            readable=False,
            help="The security folder. [default: security where it exists, else what the settings "
            "name]",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show whose certificates hold until when; exit 1 when one of them ends within 30 days.

    The exit code is 1, too, for one that does not belong to its machine or authority. No secret is
    shown.
    """
    from fleetpulse.roles import security  # noqa: PLC0415  a role starts alone

    if folder is not None or (config is None and FOLDER.exists()):
        findings = security.show(folder or FOLDER)
    else:
        findings = security.show_own(settings_of(config).settings)
    if as_json:
        print_json({one.name: _plain(one) for one in findings})
    else:
        for line in _lines(findings):
            typer.echo(line)
    if any(one.problems for one in findings):
        raise typer.Exit(1)


def _folder_command(made: "MachineFolder") -> str:
    if made.is_here:
        return f"(this machine) add to its commands: --config {_quoted(made.path / 'config.yaml')}"
    return f"scp -r {_quoted(made.path)}/* {_place(made)}/"


def _identity_command(made: "MachineFolder") -> str:
    if made.is_here:
        return "(this machine) nothing to copy"
    # Written beside and renamed: a role that looks at it never sees half of it.
    source = _quoted(made.path / "identity.pem")
    return (
        f"scp {source} {_place(made)}/identity.new && "
        f"ssh {_host(made)} mv {_TARGET}/identity.new {_TARGET}/identity.pem"
    )


def _password_command(made: "MachineFolder") -> str:
    if made.is_here:
        return "(this machine) nothing to copy"
    names = ["identity.pem", "password", *(["users"] if made.machine is Machine.BROKER else [])]
    sources = " ".join(_quoted(made.path / name) for name in names)
    return f"scp -r {sources} {_place(made)}/"


def _place(made: "MachineFolder") -> str:
    return shlex.quote(f"{_host(made, in_brackets=True)}:{_TARGET}")


def _host(made: "MachineFolder", *, in_brackets: bool = False) -> str:
    host = made.host or f"{made.machine.upper()}-HOST"
    return f"[{host}]" if in_brackets and ":" in host else host


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _plain(finding: "Finding") -> dict[str, object]:
    facts = finding.facts
    if facts is None:
        return {"problems": finding.problems}
    return {
        "subject": facts.subject,
        "hosts": facts.hosts,
        "not_before": facts.not_before.isoformat(),
        "not_after": facts.not_after.isoformat(),
        "days_left": finding.days_left,
        "sha256": facts.fingerprint,
        "problems": finding.problems,
    }


def _lines(findings: "Iterable[Finding]") -> Iterator[str]:
    for one in findings:
        if one.facts:
            hosts = f", for {', '.join(one.facts.hosts)}" if one.facts.hosts else ""
            yield (
                f"{one.name}: {one.facts.subject}{hosts}; from {one.facts.not_before:%Y-%m-%d} "
                f"to {one.facts.not_after:%Y-%m-%d}, {one.days_left} days left"
            )
            yield f"  SHA-256 {one.facts.fingerprint}"
        else:
            yield f"{one.name}:"
        yield from (f"  PROBLEM: {problem}" for problem in one.problems)
