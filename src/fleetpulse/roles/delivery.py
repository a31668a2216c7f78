"""One batch of the Spark stream -> its outputs, each exactly once.

The order is: rejects, windows topic, Parquet, ledger. A crash between two of them leaves the batch
with Spark, which gives it again; the topic knows its last batch, the rejects their last offsets,
Parquet replaces the batch's folder, and the ledger is last.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from fleetpulse.codec.window_message import encode_window
from fleetpulse.config import Settings
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.quiet import Closing
from fleetpulse.domain.window import WindowSpec
from fleetpulse.edges.kafka.window_log import WindowLog
from fleetpulse.edges.spark.ledger import BatchEnd, Ledger
from fleetpulse.edges.spark.parquet import WindowFolder
from fleetpulse.edges.spark.stream import StreamBatch
from fleetpulse.roles.refusals import Refusals

_WINDOWS_AT_ONCE: Final = 10_000


@dataclass(slots=True)
class Delivery:
    """The outputs of a stream. `closings` are those that are not over.

    `windows` counts the rows of this run by family.
    """

    settings: Settings
    ledger: Ledger
    log: WindowLog
    refusals: Refusals
    parquet: WindowFolder | None
    is_csv: bool
    windows: Counter[str] = field(default_factory=Counter)
    closings: list[Closing] = field(init=False)
    _first_ms: dict[tuple[str, str], int] = field(init=False)
    _spec: WindowSpec = field(init=False)

    def __post_init__(self) -> None:
        """Go on from what the ledger holds."""
        self.closings = self.ledger.closings()
        self._first_ms = self.ledger.first_seen()
        self._spec = self.settings.window.spec()

    def deliver(self, batch: StreamBatch, latest_ms: Mapping[str, int]) -> None:
        """Put a batch into every output that does not have it yet.

        Raises DiskError, DataChanged, ServiceUnreachable and what Spark raises.
        """
        if batch.plan.batch_id < self.ledger.next_batch:
            return
        self.refusals.write(batch)
        new_first_ms = self._note_first(batch)
        with self.ledger.batch():
            rows = self._closed(batch)
            if self.parquet is not None:
                rows = self.parquet.written(batch.plan.batch_id, rows)
            while chunk := list(islice(rows, _WINDOWS_AT_ONCE)):
                self._publish(batch.plan.batch_id, chunk)
                if self.is_csv:
                    self.ledger.add(one.row for one in chunk)
                self.windows.update(one.row.family.name for one in chunk)
            self.log.commit(batch.plan.batch_id)
            self.ledger.end(
                BatchEnd(batch.plan.batch_id, batch.plan.late_ms, new_first_ms, latest_ms)
            )
        self.closings = [one for one in self.closings if one.up_to_ms >= batch.plan.late_ms]

    def _publish(self, batch_id: int, windows: list[ClosedWindow]) -> None:
        if batch_id < self.log.next_batch:
            return
        for one in windows:
            self.log.send(one.row.server_id.encode(), encode_window(one))

    def _closed(self, batch: StreamBatch) -> Iterator[ClosedWindow]:
        """Yield the windows of a batch but those that only a part of could be full."""
        for found in batch.windows():
            row = found.row
            first_ms = self._first_ms[row.family.name, row.server_id]
            if self._spec.is_leading_dropped and row.start_ms < self._spec.pane_start(first_ms):
                continue
            yield found.closed(self._closed_by(row.end_ms))

    def _closed_by(self, end_ms: int) -> ClosedBy:
        for closing in self.closings:
            if closing.after_ms < end_ms <= closing.up_to_ms:
                return closing.closed_by
        return ClosedBy.WATERMARK

    def _note_first(self, batch: StreamBatch) -> dict[tuple[str, str], int]:
        """Take in the first sight of servers; return what is new."""
        new = {}
        for family, server_id, first_ms in batch.first_seen():
            key = (family.name, server_id)
            if first_ms < self._first_ms.get(key, first_ms + 1):
                new[key] = self._first_ms[key] = first_ms
        return new
