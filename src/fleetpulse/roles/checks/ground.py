"""What a machine must have before any network: settings, Python, Java, jars, Spark."""

import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fleetpulse.config import load
from fleetpulse.domain.errors import FleetpulseError, UsageError
from fleetpulse.domain.role import Role
from fleetpulse.edges.jars.cache import cache_dir, check_jars
from fleetpulse.edges.jars.ivy import pyspark_jars_dir
from fleetpulse.edges.jars.lock import Jar, read_lock
from fleetpulse.roles.checks.case import Case
from fleetpulse.roles.checks.verdict import Verdict, failed, passed, skipped, warned
from fleetpulse.roles.member import located
from fleetpulse.roles.setup import BROKER_JARS, CONNECTOR_JARS, ready_java

_OLDEST: Final = (3, 11)
_NEWEST: Final = (3, 13)
_PREFIX: Final = "FLEETPULSE"
_CONNECTOR: Final = "spark-sql-kafka-0-10"
_SPARK_LOG: Final = "spark.log"
# What each role cannot do without; no role at all is the machine of a newcomer.
_JARS: Final = {
    None: (BROKER_JARS, CONNECTOR_JARS),
    Role.BROKER: (BROKER_JARS,),
    Role.SPARK_STREAM: (CONNECTOR_JARS,),
}


def settings(case: Case) -> Verdict:
    """Read the settings; a variable that looks like ours and is none is a warning."""
    loaded = load(case.file, case.environ)
    case.settings = loaded.settings
    if case.role is None or case.role.user:
        loaded.settings.bootstrap()
    keys = {path.replace(".", "_") for path, _, _ in loaded.leaves()}
    strangers = sorted(name for name in case.environ if is_misspelt(name, keys))
    found = f"{loaded.file}" if loaded.file else "no settings file, defaults"
    if strangers:
        return warned(
            f"{found}; nothing reads the variable {', '.join(strangers)}; wanted "
            f"{_PREFIX}__SECTION__KEY, with two underscores"
        )
    changed = sum(origin.startswith("environment") for _, _, origin in loaded.leaves())
    return passed(f"{found}, {changed} values from the environment" if changed else found)


def is_misspelt(name: str, keys: Collection[str]) -> bool:
    """Tell whether a variable looks like a setting and is read by nobody.

    `keys` are the settings' paths with `_` between their parts, such as `broker_port`.
    """
    if not name.startswith(_PREFIX) or name.startswith(f"{_PREFIX}__"):
        return False
    rest = name.removeprefix(_PREFIX).strip("_").lower()
    return "__" in rest or rest in keys


def python(_case: Case) -> Verdict:
    """Hold the running Python against what is supported."""
    return judge_python(sys.version_info[:2])


def judge_python(found: tuple[int, int]) -> Verdict:
    """Return what is to be said of a Python of this version."""
    text = f"Python {found[0]}.{found[1]}"
    if found < _OLDEST:
        return failed(f"{text}, wanted 3.11, 3.12 or 3.13; install one and make this anew")
    if found > _NEWEST:
        return warned(f"{text} is newer than what is tested, 3.11 to 3.13")
    return passed(text)


def java(case: Case) -> Verdict:
    """Find a Java for the broker and Spark; without a role it may be missing."""
    try:
        found = ready_java(case.environ)
    except UsageError as err:
        if case.role is None:
            return warned(f"{err} (only the broker and the Spark jobs need it)")
        raise
    case.java = found
    return passed(f"Java {found.major} ({found.origin}), {found.executable}")


def jars(case: Case) -> Verdict:
    """Hold every jar in the cache against the lock; one that is missing is fetched on demand."""
    cache = cache_dir(case.environ)
    checked, missing = 0, []
    for set_name in (BROKER_JARS, CONNECTOR_JARS):
        wanted = read_lock(set_name)
        absent = check_jars(wanted, cache)
        checked += len(wanted) - len(absent)
        if absent and set_name in _JARS.get(case.role, ()):
            missing.append(f"{len(absent)} of {len(wanted)} jars of {set_name}")
    if missing:
        return warned(
            f"{' and '.join(missing)} are not fetched yet; do it while there is a network: "
            "fleetpulse setup"
        )
    return passed(f"{checked} jars in {cache / 'jars'}, every byte as locked")


def connector(case: Case) -> Verdict:
    """Hold the version of Spark's Kafka connector against that of PySpark."""
    try:
        spark = version("pyspark")
    except PackageNotFoundError:
        return _no_pyspark(case, skipped("spark"))
    scala = next((one.stem for one in pyspark_jars_dir().glob("scala-library-*.jar")), "")
    return judge_connector(read_lock(CONNECTOR_JARS), spark, scala.rpartition("-")[2])


def judge_connector(locked: tuple[Jar, ...], spark: str, scala: str) -> Verdict:
    """Return whether the locked connector is made for a Spark and a Scala of these versions."""
    module = next(one.module for one in locked if one.module.artifact.startswith(_CONNECTOR))
    wanted_scala = module.artifact.rpartition("_")[2]
    found = f"PySpark {spark}" + (f" (Scala {scala})" if scala else "")
    if _minor(spark) != _minor(module.version) or (scala and _minor(scala) != wanted_scala):
        return failed(
            f"{found} does not match the connector {module.artifact} {module.version}; install "
            "what goes with it: pip install 'fleetpulse[spark]'"
        )
    return passed(f"{found} and the connector {module.version} match")


def spark(case: Case) -> Verdict:
    """Start Spark, let it count, and stop it."""
    if find_spec("pyspark") is None:
        missing = "PySpark is not installed; do: pip install 'fleetpulse[spark]'"
        return _no_pyspark(case, failed(missing))
    if case.java is None:
        return skipped("java")
    from fleetpulse.edges.spark.session import (  # noqa: PLC0415  a machine without Spark
        SessionOptions,
        explained,
        open_session,
    )

    with TemporaryDirectory(prefix="fleetpulse-doctor-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / _SPARK_LOG
        options = SessionOptions(log, case.java.home, "local[1]")
        try:
            with open_session(options) as session, explained(log):
                count, name = session.range(1000).count(), session.version
        except FleetpulseError as err:
            return failed(_with_last_line(err, log))
    return passed(f"Spark {name} starts and counts to {count}")


def locate(case: Case) -> None:
    """Give the settings an address where `hosts.broker` names a ZeroTier member."""
    case.settings = located(case.settings)


def _no_pyspark(case: Case, otherwise: Verdict) -> Verdict:
    if case.role is None:
        return passed("PySpark is not installed; only the Spark jobs need it")
    return otherwise


def _with_last_line(err: FleetpulseError, log: Path) -> str:
    """Return the error with the end of a log that is about to be gone."""
    text = str(err).partition("; details are in")[0]
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    last = f" ({lines[-1][:200]})" if lines else ""
    return f"{text}{last}; check Java, and the memory of this machine"


def _minor(text: str) -> str:
    return ".".join(text.split(".")[:2])
