"""CPU_MEM.csv by Polars, lazily as its guide recommends. `polars_windows.py CPU MEM OUT`."""

import sys

import polars as pl

CPU_PATH, MEM_PATH, OUT_PATH = sys.argv[1:]
SLIDE = pl.duration(seconds=10)


def windows_of(path: str, metric: str) -> pl.LazyFrame:
    """Sums of panes, and of each window three of them; integers of millionths are exact."""
    schema = {"ts": pl.String, "server_id": pl.String, metric: pl.Float64}
    panes = (
        pl.scan_csv(path, schema=schema)
        .group_by(
            "server_id",
            pl.col("ts").str.to_datetime("%Y-%m-%dT%H:%M:%SZ").dt.truncate("10s").alias("pane"),
        )
        .agg((pl.col(metric) * 1e6).round().cast(pl.Int64).sum().alias("sum"), pl.len().alias("n"))
    )
    parts = [
        panes.with_columns((pl.col("pane") - back * SLIDE).alias("start")) for back in range(3)
    ]
    total, count = 2 * pl.col("sum").sum(), pl.col("n").sum().cast(pl.Int64)
    return (
        pl.concat(parts)
        .group_by("server_id", "start")
        .agg(((total + 10_000 * count) // (20_000 * count)).alias(metric))
    )


def text_of(metric: str) -> pl.Expr:
    """Two decimals, from hundredths."""
    number = pl.col(metric)
    whole, rest = (number // 100).cast(pl.String), (number % 100).cast(pl.String).str.zfill(2)
    return (whole + "." + rest).fill_null("")


is_hot, is_full = (
    (pl.col(name) >= limit).fill_null(value=False)
    for name, limit in (("cpu_pct", 8000), ("mem_pct", 8900))
)
alert = (
    pl.when(is_hot & is_full)
    .then(pl.lit("Intense resource spike"))
    .when(is_hot)
    .then(pl.lit("Performance spike suspected"))
    .when(is_full)
    .then(pl.lit("Memory saturation suspected"))
    .otherwise(pl.lit(""))
)
found = windows_of(CPU_PATH, "cpu_pct").join(
    windows_of(MEM_PATH, "mem_pct"), on=["server_id", "start"], how="full", coalesce=True
)
# The earliest window ends with the pane of the first sample: two slides on, windows are whole.
is_whole = pl.col("start") >= pl.col("start").min().over("server_id") + 2 * SLIDE
(
    found.filter(is_whole)
    .sort("server_id", "start")
    .select(
        "server_id",
        pl.col("start").dt.strftime("%H:%M:%S").alias("window_start"),
        (pl.col("start") + 3 * SLIDE).dt.strftime("%H:%M:%S").alias("window_end"),
        text_of("cpu_pct").alias("avg_cpu"),
        text_of("mem_pct").alias("avg_mem"),
        alert.alias("alert"),
    )
    .collect()
    .write_csv(OUT_PATH, quote_style="never")
)
