"""Prepares a machine: finds Java and fetches the pinned jars; later runs need no network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fleetpulse.edges.jars.cache import cache_dir, ensure_jars, resolve
from fleetpulse.edges.jars.ivy import pyspark_jars_dir
from fleetpulse.edges.jars.lock import LOCK_PATH, Module, read_lock, write_lock
from fleetpulse.edges.java import Java, find_java

BROKER_JARS: Final = "kafka"
CONNECTOR_JARS: Final = "spark-kafka"
# The broker logs through slf4j 1.7, which needs the binding to its log4j.
_WANTED: Final = {
    BROKER_JARS: (
        Module("org.apache.kafka", "kafka_2.13", "4.3.1"),
        Module("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),
    ),
    CONNECTOR_JARS: (Module("org.apache.spark", "spark-sql-kafka-0-10_2.13", "4.0.0"),),
}


def ready_java(environ: Mapping[str, str]) -> Java:
    """Return the Java runtime for Spark and the broker; errors as in `find_java`."""
    return find_java(environ, cache_dir(environ) / "java")


def ready_jars(
    set_name: str, environ: Mapping[str, str], java: Java, say: Callable[[str], None]
) -> tuple[Path, ...]:
    """Return the checked files of BROKER_JARS or CONNECTOR_JARS; errors as in `ensure_jars`."""
    wanted = read_lock(set_name)
    return ensure_jars(wanted, cache_dir(environ), java.executable, say)


def prepare(environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Find Java and fetch every jar that is not in the cache yet; `say` gets what was found."""
    java = ready_java(environ)
    say(f"Java {java.major} ({java.origin}): {java.executable}")
    for set_name in _WANTED:
        found = ready_jars(set_name, environ, java, say)
        say(f"{len(found)} jars of {set_name}, checked: {found[0].parent}")


def relock(environ: Mapping[str, str]) -> Path:
    """Resolve the wanted modules again, write the lock and return its path."""
    java, cache = ready_java(environ).executable, cache_dir(environ)
    provided = {CONNECTOR_JARS: pyspark_jars_dir()}
    write_lock(
        jar
        for set_name, modules in _WANTED.items()
        for jar in resolve(set_name, modules, cache, java, provided.get(set_name))
    )
    return LOCK_PATH
