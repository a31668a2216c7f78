"""What every command shares: options, event lines, signals, errors and results."""

import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.models import OptionInfo

from fleetpulse.config import Loaded, load
from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.text import duration_s

INTERRUPTED: Final = 130
_UMASK: Final = 0o027
_LINE_EVERY_S: Final = 10.0
_OBJECTS_BETWEEN_COLLECTIONS: Final = 200_000


def _duration(text: object) -> float:
    try:
        return duration_s(str(text))  # a default comes as the number that it is
    except ValueError as err:
        raise typer.BadParameter(str(err)) from err


def duration_option(name: str, help_text: str, default: str | None = None) -> OptionInfo:
    """Return an option that takes a duration such as 500ms, 30s, 5m or 2h and gives seconds.

    `default` is how the default is shown, None shows none.
    """
    info: OptionInfo = typer.Option(
        name,
        parser=_duration,
        metavar="DURATION",
        help=f"{help_text} [default: {default}]" if default else help_text,
        show_default=False,
    )
    return info


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        readable=False,
        help="Settings file; keys that it leaves out keep their defaults. "
        "[default: config/config.yaml where it exists]",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def settings_of(config: Path | None, overrides: Mapping[str, str] | None = None) -> Loaded:
    """Return the effective settings of a command."""
    return load(config, os.environ, overrides)


def speaker(role: str) -> Callable[[str], None]:
    """Return a function that writes one event as a line with the time to standard error."""

    def say(event: str) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {role}: {event}\n")
        sys.stderr.flush()

    return say


def print_json(result: Mapping[str, Any]) -> None:
    """Print a result for scripts: one JSON object on one line of standard output."""
    typer.echo(json.dumps(result))


def counts(numbers: Mapping[Any, int]) -> str:
    """Return `name 3, other 5` for people."""
    return ", ".join(f"{name} {number:,}" for name, number in numbers.items())


@contextmanager
def progress_on(unit: str) -> Iterator[Callable[[int, float | None], None]]:
    """Give a function that takes a count so far and the share done (0 to 1, None: unknown).

    On a terminal it moves a bar with the rate; elsewhere it writes a line every ten seconds.
    """
    if sys.stderr.isatty():
        with _bar(unit) as report:
            yield report
        return
    next_line_s = time.monotonic() + _LINE_EVERY_S

    def report_line(count: int, share: float | None) -> None:
        nonlocal next_line_s
        if time.monotonic() >= next_line_s:
            next_line_s = time.monotonic() + _LINE_EVERY_S
            part = "" if share is None else f", {share:.0%}"
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {count:,} {unit}{part}\n")

    yield report_line


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int, float | None], None]]:
    # Rich takes as long to import as the rest of a command: only a terminal pays for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    started_s = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, text="")

        def report(count: int, share: float | None) -> None:
            rate = count / max(time.monotonic() - started_s, 0.001)
            progress.update(
                task,
                total=None if share is None else 1.0,
                completed=share or 0.0,
                text=f"{count:,} {unit}, {rate:,.0f}/s",
            )

        yield report


def collect_seldom() -> None:
    """Let Python look for cycles less often; call it once a role's modules are imported.

    A role that reads messages makes a hundred thousand short-lived objects a second and hardly a
    cycle; looking for some took a fifth of its CPU time.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set; a second signal ends the process at once."""
    stop = threading.Event()

    def on_signal(_signal: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(app: typer.Typer, arguments: list[str] | None) -> int:
    """Run a command and return its exit code; errors become one message without a traceback."""
    # NumPy starts threads for linear algebra, which nothing here does; they cost time and memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What a command and its children make is for their owner and group: see docs/security.md.
    before = os.umask(_UMASK)
    os.umask(before | _UMASK)
    try:
        app(arguments, prog_name="fleetpulse")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except FleetpulseError as err:
        typer.echo(f"fleetpulse: {err}", err=True)
        return err.exit_code
    except KeyboardInterrupt:
        typer.echo("fleetpulse: interrupted", err=True)
        return INTERRUPTED
    except Exception:  # noqa: BLE001  the last line of defence: a bug, kept for a report
        with tempfile.NamedTemporaryFile(
            "w",
            prefix="fleetpulse-",
            suffix=".log",
            # A service's /tmp goes with it; systemd names a folder that stays.
            dir=os.environ.get("LOGS_DIRECTORY"),
            delete=False,
        ) as report:
            report.write(traceback.format_exc())
        typer.echo(
            f"fleetpulse: internal error, a defect of ours; please report it with {report.name}",
            err=True,
        )
        return 1
    finally:
        os.umask(before)
    return 0
