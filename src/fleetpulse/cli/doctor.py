"""`doctor`."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fleetpulse.cli.console import ConfigOption, JsonOption, print_json
from fleetpulse.domain.role import Role

if TYPE_CHECKING:
    from fleetpulse.roles.checks.verdict import Finding

_EXIT_CODES: Final = {"pass": 0, "warn": 1, "fail": 2}
_COLOURS: Final = {"pass": "green", "skip": "blue", "warn": "yellow", "fail": "red"}


def doctor(
    *,
    role: Annotated[
        Role | None, typer.Option("--role", help="What this machine is for. [default: anything]")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, its network and the broker; each line names what is wrong, what to do.

    Nothing is changed, but for the topic fleetpulse-doctor, which is made to send a message and
    read it back. Exit 0: all is well, 1: warnings, 2: failures.
    """
    from fleetpulse.roles.doctor import doctor as examine  # noqa: PLC0415  a role starts alone
    from fleetpulse.roles.doctor import worst  # noqa: PLC0415

    findings = examine(role, config, os.environ, _ignore if as_json else _show)
    outcome = worst(findings)
    if as_json:
        print_json({"outcome": outcome, "checks": [_plain(one) for one in findings]})
    raise typer.Exit(_EXIT_CODES[outcome])


def _show(finding: "Finding") -> None:
    outcome = str(finding.outcome)
    shown = typer.style(outcome, fg=_COLOURS[outcome]) if sys.stdout.isatty() else outcome
    typer.echo(f"{shown}  {finding.name:<10}  {finding.verdict.text}")
    sys.stdout.flush()


def _ignore(_finding: "Finding") -> None:
    pass


def _plain(finding: "Finding") -> dict[str, object]:
    return {
        "name": finding.name,
        "outcome": finding.outcome,
        "text": finding.verdict.text,
        "because": finding.verdict.because,
        "seconds": round(finding.seconds, 3),
    }
