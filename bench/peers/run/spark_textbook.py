"""Spark Structured Streaming as its guide writes it: one stream for each family, append to CSV.

`avg` of decimals is exact, so the rows can be compared byte by byte; with `DOUBLE` the sums would
depend on the order of addition. Two shuffle partitions, one for each core.
"""

import datetime as dt
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.streaming.query import StreamingQuery
from work import SIZE_MS, SLIDE_MS, Options, options, say


def session(given: Options) -> SparkSession:
    """Return a local session on two cores."""
    return (
        SparkSession.builder.master("local[2]")
        .appName("textbook")
        .config("spark.jars", given.jars)
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )


def windows(
    spark: SparkSession, given: Options, topics: tuple[str, str], fields: str, *of: Column
) -> DataFrame:
    """Return a family's windows from its two topics, with the aggregates `of`."""
    messages = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", given.bootstrap)
        .option("subscribe", ",".join(topics))
        .option("startingOffsets", "earliest")
        .load()
    )
    schema = f"ts TIMESTAMP, server_id STRING, {fields}"
    return (
        messages.select(f.from_json(f.col("value").cast("string"), schema).alias("m"))
        .select("m.*")
        .withWatermark("ts", f"{given.lateness_ms} milliseconds")
        .groupBy(f.window("ts", f"{SIZE_MS} milliseconds", f"{SLIDE_MS} milliseconds"), "server_id")
        .agg(*of)
    )


def write(
    given: Options, name: str, found: DataFrame, limits: tuple[int, int], labels: tuple[str, ...]
) -> StreamingQuery:
    """Start the query that judges the windows and appends them to CSV files."""
    first, second = found.columns[-2:]
    is_first, is_second = f.col(first) >= limits[0], f.col(second) >= limits[1]
    alert = (
        f.when(is_first & is_second, labels[2])
        .when(is_first, labels[0])
        .when(is_second, labels[1])
        .otherwise("")
    )
    rows = found.select(
        "server_id",
        f.unix_millis("window.start"),
        f.unix_millis("window.end"),
        first,
        second,
        alert.alias("alert"),
    )
    writer = (
        rows.writeStream.format("csv")
        .outputMode("append")
        .option("path", str(given.out / name))
        .option("checkpointLocation", str(given.out / f"{name}.checkpoint"))
        .option("emptyValue", "")
    )
    return (writer if given.is_live else writer.trigger(availableNow=True)).start()


def first_message_s(progress: list[Any]) -> float:
    """Return when the first batch with input began to be read, in seconds since 1970."""
    for one in progress:
        if one["numInputRows"]:
            planned_ms = one["durationMs"]["triggerExecution"] - one["durationMs"]["addBatch"]
            return dt.datetime.fromisoformat(one["timestamp"]).timestamp() + planned_ms / 1000
    return 0.0


def main() -> None:
    """Run both queries until what was there is drained, or for ever."""
    given = options()
    spark = session(given)
    spark.sparkContext.setLogLevel("ERROR")
    cpu_mem = windows(
        spark,
        given,
        given.topics[:2],
        "cpu_pct DECIMAL(9,2), mem_pct DECIMAL(9,2)",
        f.round(f.avg("cpu_pct"), 2).alias("avg_cpu"),
        f.round(f.avg("mem_pct"), 2).alias("avg_mem"),
    )
    net_disk = windows(
        spark,
        given,
        given.topics[2:],
        "net_in DECIMAL(12,2), disk_io DECIMAL(12,2)",
        f.max("net_in").alias("max_net_in"),
        f.max("disk_io").alias("max_disk_io"),
    )
    cpu_mem_labels = (
        "Performance spike suspected",
        "Memory saturation suspected",
        "Intense resource spike",
    )
    net_disk_labels = ("Potential DDoS detection", "Disk thrash warning", "Sustained load alert")
    queries = [
        write(given, "cpu_mem", cpu_mem, (80, 89), cpu_mem_labels),
        write(given, "net_disk", net_disk, (6100, 1800), net_disk_labels),
    ]
    for query in queries:
        query.awaitTermination()
    say("first", min(first_message_s(query.recentProgress) for query in queries))
    say("done")
    spark.stop()


if __name__ == "__main__":
    main()
