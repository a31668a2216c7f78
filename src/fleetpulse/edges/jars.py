"""Pinned jars: fetched once with Ivy into the user's cache, checked against jars.lock on every use.

Ivy ships inside PySpark. Each line of jars.lock is `SET GROUP:ARTIFACT:VERSION SIZE SHA256`.
Ivy is told to fetch exactly the jars of the lock and none of their dependencies, so the lock alone
says what runs. The cache is one flat folder: sets share it, and every jar enters it whole, by a
rename, so that processes may fetch at the same time.
"""

import contextlib
import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from fleetpulse.domain.errors import (
    DamagedState,
    DataChanged,
    DiskError,
    FleetpulseError,
    ServiceUnreachable,
    UsageError,
)

LOCK_PATH: Final = Path(__file__).with_name("jars.lock")
# A server that does not answer ends a run instead of hanging it.
_TIMEOUTS: Final = (
    "-Dsun.net.client.defaultConnectTimeout=20000",
    "-Dsun.net.client.defaultReadTimeout=60000",
)
_REPORT_EVERY: Final = 10
_LOCK_HEADER: Final = "# set group:artifact:version size_bytes sha256; made by: make lock\n"


@dataclass(frozen=True, slots=True, order=True)
class Module:
    """What a jar is called in a repository."""

    group: str
    artifact: str
    version: str

    @classmethod
    def parse(cls, text: str) -> "Module":
        """Return the module of `group:artifact:version`; ValueError for anything else."""
        group, artifact, version = text.split(":")
        return cls(group, artifact, version)

    @property
    def file_name(self) -> str:
        """Return the name of its jar file."""
        return f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        """Return `group:artifact:version`."""
        return f"{self.group}:{self.artifact}:{self.version}"


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock."""

    set_name: str
    module: Module
    size_bytes: int
    sha256: str


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of everything downloaded or generated for this user.

    FLEETPULSE_CACHE, else `fleetpulse` below XDG_CACHE_HOME, else below ~/Library/Caches (macOS)
    or ~/.cache. Raises UsageError where none of them is known.
    """
    if own := environ.get("FLEETPULSE_CACHE"):
        return Path(own).absolute()
    if xdg := environ.get("XDG_CACHE_HOME"):
        return Path(xdg).absolute() / "fleetpulse"
    try:
        home = Path.home()
    except RuntimeError as err:
        raise UsageError(
            "no folder for downloads: neither HOME nor FLEETPULSE_CACHE is set; set one of them"
        ) from err
    below = Path("Library", "Caches") if sys.platform == "darwin" else Path(".cache")
    return home / below / "fleetpulse"


def read_lock(set_name: str, lock_path: Path = LOCK_PATH) -> tuple[Jar, ...]:
    """Return the jars of a set in the order of the lock.

    Raises UsageError for a set that the lock does not have, and DamagedState where a line cannot
    be read.
    """
    jars = []
    for number, line in enumerate(lock_path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        try:
            name, module, size_bytes, sha256 = line.split()
            jars.append(Jar(name, Module.parse(module), int(size_bytes), sha256))
        except ValueError as err:
            raise DamagedState(
                f"{lock_path}, line {number}: wanted SET GROUP:ARTIFACT:VERSION SIZE SHA256; "
                "restore the file from version control"
            ) from err
    chosen = tuple(jar for jar in jars if jar.set_name == set_name)
    if not chosen:
        raise UsageError(f"{lock_path}: there is no set {set_name!r}")
    return chosen


def ensure_jars(
    jars: tuple[Jar, ...], cache: Path, java: Path, say: Callable[[str], None]
) -> tuple[Path, ...]:
    """Return the files of the jars in the same order, every byte checked; fetch missing ones.

    With all of them in `cache` there is no network and no Java, only their checksums (about 60 ms
    for the broker's 45 MB). `say` gets lines about a download. Raises DataChanged where a jar's
    content is not what the lock wants, ServiceUnreachable where the download fails, DiskError
    where the cache cannot be written, and UsageError without PySpark.
    """
    folder = cache / "jars"
    missing = [jar for jar in jars if not (folder / jar.module.file_name).is_file()]
    if missing:
        _fetch(missing, folder, java, say)
    paths = tuple(folder / jar.module.file_name for jar in jars)
    for jar, path in zip(jars, paths, strict=True):
        _verify(jar, path, path)
    return paths


def write_lock(
    wanted: Mapping[str, tuple[Module, ...]],
    provided: Mapping[str, Path],
    cache: Path,
    java: Path,
    lock_path: Path = LOCK_PATH,
) -> None:
    """Resolve each set's modules with all their dependencies and write the lock.

    Artifacts of which the folder `provided[set]` has any version are left out of that set.
    Raises what `ensure_jars` raises.
    """
    lines = [_LOCK_HEADER]
    with _staging(cache / "jars") as staging:
        for set_name, modules in wanted.items():
            pattern = f"{staging}/{set_name}/[organisation]~[artifact]~[revision].[ext]"
            _run_ivy(modules, pattern, staging, java, lambda _line: None, is_transitive=True)
            have = provided.get(set_name)
            for path in sorted((staging / set_name).glob("*.jar")):
                module = Module(*path.stem.split("~"))
                if have is None or not any(have.glob(f"{module.artifact}-[0-9]*.jar")):
                    lines.append(f"{set_name} {module} {path.stat().st_size} {_sha256(path)}\n")
    lock_path.write_text("".join(lines), encoding="utf-8")


def pyspark_jars_dir() -> Path:
    """Return PySpark's folder of jars; UsageError where PySpark is not installed."""
    package = importlib.util.find_spec("pyspark")
    for folder in (package and package.submodule_search_locations) or ():
        return Path(folder) / "jars"
    raise UsageError(
        "PySpark is not installed, and it brings the tool that fetches jars; install it with: "
        "pip install 'fleetpulse[broker]'"
    )


def _fetch(jars: list[Jar], folder: Path, java: Path, say: Callable[[str], None]) -> None:
    set_name = jars[0].set_name
    total_mb = sum(jar.size_bytes for jar in jars) / 1e6
    say(f"fetching {len(jars)} jars of {set_name} ({total_mb:.0f} MB)")
    done = 0

    def count(line: str) -> None:
        nonlocal done
        if "[SUCCESSFUL ]" in line:
            done += 1
            if done % _REPORT_EVERY == 0:
                say(f"{done} of {len(jars)} jars of {set_name}")

    with _staging(folder) as staging:
        modules = tuple(jar.module for jar in jars)
        pattern = f"{staging}/[artifact]-[revision].[ext]"
        _run_ivy(modules, pattern, staging, java, count, is_transitive=False)
        for jar in jars:
            fetched, final = staging / jar.module.file_name, folder / jar.module.file_name
            _verify(jar, fetched, final)
            fetched.replace(final)


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=parent, prefix=".fetch-"))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as err:
        raise DiskError(
            f"{parent}: cannot store jars ({err.strerror}); make room, or set FLEETPULSE_CACHE to "
            "a folder that you may write, and run this again"
        ) from err


def _run_ivy(
    modules: tuple[Module, ...],
    pattern: str,
    staging: Path,
    java: Path,
    on_line: Callable[[str], None],
    *,
    is_transitive: bool,
) -> None:
    ivy = next(pyspark_jars_dir().glob("ivy-*.jar"), None)
    if ivy is None:
        raise UsageError(
            f"{pyspark_jars_dir()}: no ivy jar; reinstall pyspark, then run this again"
        )
    wanted = staging / "ivy.xml"
    wanted.write_text(_ivy_xml(modules, is_transitive=is_transitive), encoding="utf-8")
    log_path = staging.parent / "fetch.log"
    command = [java, *_TIMEOUTS, "-jar", ivy, "-cache", staging / "ivy", "-ivy", wanted]
    with (
        log_path.open("w", encoding="utf-8") as log,
        subprocess.Popen(  # noqa: S603  Java and arguments are ours
            [*map(str, command), "-confs", "default", "-retrieve", pattern],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                log.write(line)
                on_line(line)
        finally:
            # Ended by an error or Ctrl-C of ours: it must not go on alone.
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.kill()
    if process.returncode:
        raise _failure(log_path, staging)


def _ivy_xml(modules: tuple[Module, ...], *, is_transitive: bool) -> str:
    # "default" alone means the module's jar and what it needs to run.
    dependencies = "".join(
        f"<dependency org={quoteattr(module.group)} name={quoteattr(module.artifact)} "
        f'rev={quoteattr(module.version)} conf="default->default" '
        f'transitive="{str(is_transitive).lower()}"/>'
        for module in modules
    )
    return (
        '<ivy-module version="2.0"><info organisation="fleetpulse" module="jars"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )


def _failure(log_path: Path, staging: Path) -> FleetpulseError:
    log = log_path.read_text(encoding="utf-8", errors="replace")
    if os.strerror(errno.ENOSPC) in log or not shutil.disk_usage(staging).free:
        return DiskError(
            f"{staging.parent}: the disk is full; make room, or set FLEETPULSE_CACHE to a folder "
            f"on another disk, and run this again (log: {log_path})"
        )
    return ServiceUnreachable(
        "the download of jars failed; check the network (and the proxy, if there is one: "
        f"JAVA_TOOL_OPTIONS), then run this again (log: {log_path})"
    )


def _verify(jar: Jar, path: Path, shown: Path) -> None:
    try:
        found = _sha256(path)
    except FileNotFoundError as err:
        raise ServiceUnreachable(
            f"{jar.module}: the download brought no such jar; run this again"
        ) from err
    except OSError as err:
        raise DiskError(f"{path}: cannot read it ({err.strerror}); check the disk") from err
    if found != jar.sha256:
        where = "the cached jar" if path == shown else "the downloaded jar"
        step = f"delete {shown} and run this again" if path == shown else "nothing was installed"
        raise DataChanged(
            f"{shown}: {where} of {jar.module} is not the one that the lock names: found SHA-256 "
            f"{found}, wanted {jar.sha256}; {step}. If it comes back, something between this "
            "machine and the repository changes files: ask whoever runs the network"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
