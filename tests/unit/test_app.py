"""Which modules a command brings in, and which commands there are."""

import subprocess
import sys

import pytest

CODE = """
import sys
from fleetpulse.cli import main
code = main(sys.argv[1:])
modules = [name for name in sys.modules if name.startswith("fleetpulse.cli.") or name == "rich"]
print(code, *sorted(modules), sep="\\n", file=sys.stderr)
"""
ALWAYS = ["fleetpulse.cli.app", "fleetpulse.cli.console"]


def modules_after(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    code, *modules = done.stderr.splitlines()
    assert code == "0"
    return modules


@pytest.mark.parametrize(
    ("arguments", "own"),
    [
        (("topics", "list", "--help"), ["topics"]),
        (("consumer1", "--help"), ["consume"]),
        (("analyze", "cpu-mem", "--help"), ["analyze", "spark"]),
    ],
)
def test_a_command_brings_in_no_module_of_another(
    arguments: tuple[str, ...], own: list[str]
) -> None:
    wanted = sorted([*ALWAYS, *(f"fleetpulse.cli.{name}" for name in own)])
    assert modules_after(*arguments) == wanted


def test_a_name_that_is_none_is_answered_with_one_that_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleetpulse", "analyse"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "No such command 'analyse'. Did you mean 'analyze'?" in done.stderr
