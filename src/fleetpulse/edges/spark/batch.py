"""The windows of a family from files, in one Spark query."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sql

from fleetpulse.codec.field import number_text
from fleetpulse.domain.aggregate import Arithmetic, WindowRow
from fleetpulse.domain.metric import Family, Metric
from fleetpulse.domain.rule import RuleSet
from fleetpulse.domain.window import WindowSpec
from fleetpulse.edges.spark import columns

_TS: Final = "ts_ms"
_SERVER: Final = "server_id"
_START: Final = "start_ms"


@dataclass(frozen=True, slots=True)
class ValueFile:
    """One metric's samples, in any order: a CSV of `value_line` rows without a header."""

    metric: Metric
    path: Path


def value_line(ts_ms: int, server_id: str, value: float) -> str:
    """Return a checked sample as a line, with its end, of a ValueFile."""
    return f"{ts_ms},{server_id},{number_text(value)}\n"


def window_rows(
    session: SparkSession,
    files: tuple[ValueFile, ValueFile],
    spec: WindowSpec,
    rules: RuleSet,
    arithmetic: Arithmetic,
) -> Iterator[WindowRow]:
    """Yield every window row of the family, sorted by server id (in byte order) and start.

    `files` follow the family's metrics. At most one partition of the result is in memory at a time.
    Spark's own errors come through: use it inside `session.explained`.
    """
    family = rules.family
    result = _query(session, files, spec, rules, arithmetic)
    for server_id, start_ms, first, second, alert in result.toLocalIterator():
        end_ms = start_ms + spec.size_ms
        yield WindowRow(family, server_id, start_ms, end_ms, (first, second), alert)


def _query(
    session: SparkSession,
    files: tuple[ValueFile, ValueFile],
    spec: WindowSpec,
    rules: RuleSet,
    arithmetic: Arithmetic,
) -> DataFrame:
    family = rules.family
    server_id, start_ms = sql.col(_SERVER), sql.col(_START)
    windows = (
        _samples(session, files, family, arithmetic)
        .groupBy(_SERVER, columns.window_of(sql.timestamp_millis(_TS), spec).alias("window"))
        .agg(*_aggregates(family, arithmetic))
        .withColumn(_START, sql.unix_millis(sql.col("window.start")))
    )
    if spec.is_leading_dropped:
        first_pane = columns.first_pane_start(server_id, start_ms, spec)
        windows = windows.withColumn("first_pane_ms", first_pane).where(
            start_ms >= sql.col("first_pane_ms")
        )
    found = [columns.aggregate(metric, arithmetic) for metric in family.metrics]
    return windows.select(
        server_id,
        start_ms,
        *(one.hundredths().alias(one.metric.name) for one in found),
        columns.verdict(rules, server_id, found).alias("alert"),
    ).orderBy(server_id, start_ms)  # Spark orders text by its UTF-8 bytes.


def _samples(
    session: SparkSession,
    files: tuple[ValueFile, ValueFile],
    family: Family,
    arithmetic: Arithmetic,
) -> DataFrame:
    """Return both files as one, each row with a value for one of the metrics.

    A union instead of a join: a lost sample of one metric cannot take the other's with it.
    """
    first, second = (
        session.read.csv(
            literal_path(file.path),
            schema=f"{_TS} bigint, {_SERVER} string, {file.metric.name} string",
        )
        for file in files
    )
    both = first.unionByName(second, allowMissingColumns=True)
    values = (columns.read_value(metric, arithmetic) for metric in family.metrics)
    return both.select(_TS, _SERVER, *values)


def literal_path(path: Path) -> str:
    """Return a path as Spark takes it: not escaped as a URI, and with its globs off."""
    return "file://" + re.sub(r"([][{}*?\\])", r"\\\1", str(path.absolute()))


def _aggregates(family: Family, arithmetic: Arithmetic) -> list[Column]:
    return [one for metric in family.metrics for one in columns.aggregates_of(metric, arithmetic)]
