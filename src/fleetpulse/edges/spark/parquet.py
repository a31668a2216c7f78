"""Windows as Parquet, one folder a batch: `FOLDER/batch=N`. A batch written again replaces its own.

`first` and `second` are the reported numbers of the family's metrics, null without a sample;
`first_exact` and `second_exact` the quotients behind them, as fractions.
"""

from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Final

from pyspark.sql import SparkSession
from pyspark.sql import functions as sql

from fleetpulse.domain.closing import ClosedWindow
from fleetpulse.edges.spark.batch import literal_path

_AT_ONCE: Final = 100_000
_SCHEMA: Final = (
    "family string, server_id string, start_ms bigint, end_ms bigint, alert string, "
    "closed_by string, first decimal(14,2), second decimal(14,2), first_exact string, "
    "second_exact string, first_samples int, second_samples int, first_samples_over int, "
    "second_samples_over int"
)
_Cell = str | int | Decimal | None


class WindowFolder:
    """A folder of batches, on a disk that every machine of the cluster reaches."""

    def __init__(self, session: SparkSession, path: Path) -> None:
        """Take the folder; it is made with the first batch."""
        self._session = session
        self._path = path

    def written(self, batch_id: int, windows: Iterator[ClosedWindow]) -> Iterator[ClosedWindow]:
        """Yield the windows of a batch, each of them written."""
        mode = "overwrite"
        while chunk := list(islice(windows, _AT_ONCE)):
            frame = self._session.createDataFrame([_cells(one) for one in chunk], _SCHEMA)
            instants = (
                sql.timestamp_millis(sql.col(f"{name}_ms")).alias(name) for name in ("start", "end")
            )
            target = self._path / f"batch={batch_id}"
            frame.select("*", *instants).drop("start_ms", "end_ms").coalesce(1).write.mode(
                mode
            ).parquet(literal_path(target))
            mode = "append"
            yield from chunk


def _cells(window: ClosedWindow) -> tuple[_Cell, ...]:
    row = window.row
    return (
        row.family.name,
        row.server_id,
        row.start_ms,
        row.end_ms,
        row.alert,
        window.closed_by.value,
        *(None if one is None else Decimal(one).scaleb(-2) for one in row.hundredths),
        *(None if one is None else str(one) for one in window.exact),
        *window.samples,
        *window.samples_over,
    )
