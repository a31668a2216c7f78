"""What the peers need: an environment of their own, jars of their own, and compiled programs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.edges.jars.cache import cache_dir, ensure_jars, resolve
from fleetpulse.edges.jars.lock import Module, read_lock, write_lock
from fleetpulse.edges.java import Java

PROGRAMS: Final = Path(__file__).parent / "run"
PEERS_VENV: Final = Path(__file__).parents[2] / ".venv-peers"
PEERS_PYTHON: Final = PEERS_VENV / "bin" / "python"
STREAMS_JARS: Final = "kafka-streams"
FLINK_JARS: Final = "flink"
NOT_SET_UP: Final = "not set up; run: bench/live.py --setup"
REQUIREMENTS: Final = Path(__file__).parents[1] / "requirements-peers.txt"
LOCK: Final = Path(__file__).with_name("jars.lock")
_QUIET: Final = Module("org.slf4j", "slf4j-nop", "1.7.36")
WANTED: Final = {
    STREAMS_JARS: (Module("org.apache.kafka", "kafka-streams", "4.3.1"), _QUIET),
    FLINK_JARS: (
        Module("org.apache.flink", "flink-connector-kafka", "5.0.0-2.2"),
        Module("org.apache.flink", "flink-connector-base", "2.2.0"),
        Module("org.apache.flink", "flink-clients", "2.2.0"),
        _QUIET,
    ),
}


def set_up(environ: Mapping[str, str], java: Java, say: Callable[[str], None]) -> None:
    """Install the peers: their own environment from the hash lock, and the checked jars."""
    say(f"installing {REQUIREMENTS.name} into {PEERS_VENV.name}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEERS_VENV)], check=True)
    subprocess.run(
        [
            *(str(PEERS_PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
            *("--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS)),
        ],
        check=True,
    )
    for name in WANTED:
        ensure_jars(read_lock(name, LOCK), cache_dir(environ), java.executable, say)


def relock(environ: Mapping[str, str], java: Java) -> None:
    """Resolve the wanted modules again and write the lock of the jars."""
    cache = cache_dir(environ)
    write_lock(
        [
            jar
            for name, modules in WANTED.items()
            for jar in resolve(name, modules, cache, java.executable, None)
        ],
        LOCK,
    )


def missing_python() -> str:
    """Return why the peers in Python cannot run, or ""."""
    return "" if PEERS_PYTHON.exists() else NOT_SET_UP


def compiled(
    program: str, set_name: str, environ: Mapping[str, str], java: Java, classes: Path
) -> tuple[str, str]:
    """Compile a program in Java into `classes`; return its class path, and why not, or "".

    Nothing is downloaded here.
    """
    compiler = java.home / "bin" / "javac"
    found = str(compiler) if compiler.exists() else shutil.which("javac")
    if found is None:
        return "", "no Java compiler (javac) on this machine"
    wanted, cache = read_lock(set_name, LOCK), cache_dir(environ)
    if not all((cache / "jars" / jar.module.file_name).is_file() for jar in wanted):
        return "", NOT_SET_UP
    try:
        paths = ensure_jars(wanted, cache, java.executable, lambda _line: None)
    except FleetpulseError as err:
        return "", str(err)
    class_path = os.pathsep.join(map(str, (classes, *paths)))
    done = subprocess.run(
        [found, "-cp", class_path, "-d", str(classes), str(PROGRAMS / program)],
        capture_output=True,
        text=True,
        check=False,
    )
    return class_path, done.stderr[-300:] if done.returncode else ""
