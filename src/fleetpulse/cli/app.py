"""The commands.

A command's module is imported when it is asked for, and its role inside the command, so that each
starts fast and alone.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Final

import typer

from fleetpulse.cli.console import run

# Each with its module and its name there, in the order of --help: first what a newcomer types, then
# the roles along the way of the data.
_COMMANDS: Final = {
    "demo": ("demo", "demo"),
    "setup": ("broker", "setup"),
    "broker": ("broker", "app"),
    "topics": ("topics", "app"),
    "producer": ("produce", "producer"),
    "consumer1": ("consume", "consumer1"),
    "consumer2": ("consume", "consumer2"),
    "audit": ("audit", "audit"),
    "analyze": ("analyze", "app"),
    "spark-job1": ("spark", "spark_job1"),
    "spark-job2": ("spark", "spark_job2"),
    "spark-jobs": ("spark", "spark_jobs"),
    "monitor": ("monitor", "monitor"),
    "spark-stream": ("stream", "spark_stream"),
    "simulate": ("produce", "simulate"),
    "doctor": ("doctor", "doctor"),
    "network": ("network", "app"),
    "security": ("security", "app"),
    "config": ("settings", "app"),
    "deploy": ("deploy", "app"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` (default: those of the process) and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    # All of them are needed for --help, and to answer a name that is none.
    names = words[:1] if words and words[0] in _COMMANDS else _COMMANDS
    return run(_app(names), arguments)


def _app(names: Iterable[str]) -> typer.Typer:
    app = typer.Typer(
        name="fleetpulse",
        help="Real-time server monitoring on Apache Kafka and Apache Spark.",
        epilog="Every command explains itself: fleetpulse COMMAND --help",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    # With it, a lone command is a command and not the whole app.
    app.callback()(lambda: None)
    for name in names:
        module, attribute = _COMMANDS[name]
        found = getattr(import_module(f"fleetpulse.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app
