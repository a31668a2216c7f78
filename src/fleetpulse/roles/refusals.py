"""The messages of a Spark batch that count in no window -> the rejects file, each exactly once.

A crash leaves the batch with Spark, which gives it again; the sink knows the last offsets that it
holds of each partition.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import Final

from fleetpulse.codec.message import decode_message
from fleetpulse.codec.rejects import message_reject_line, rejects_file_name
from fleetpulse.config import Settings
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.position import Partition, Position
from fleetpulse.domain.reject import RATIO_WINDOW, Reject, RejectClass
from fleetpulse.edges.sink import Batch, Lines, Sink
from fleetpulse.edges.spark.stream import RefusedMessage, StreamBatch

ROLE: Final = "spark-stream"
REJECTS_FILE: Final = rejects_file_name(ROLE)
_AT_ONCE: Final = 10_000
_SERVERS_SHOWN: Final = 5


@dataclass(slots=True)
class Refusals:
    """The rejects file of a stream; `counts` are those of this run by class."""

    settings: Settings
    sink: Sink
    say: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)

    def write(self, batch: StreamBatch) -> None:
        """Write what a batch refuses, but for what is written already.

        Raises DiskError, DataChanged and what Spark raises.
        """
        refused = batch.refused()
        of_servers: Counter[tuple[str, str]] = Counter()
        while chunk := list(islice(refused, _AT_ONCE)):
            self._commit(batch, chunk, of_servers)
        self._say_whose(of_servers)

    def alarm(self, batch: StreamBatch) -> str | None:
        """Return why the run has to pause where too much of a batch is no sample."""
        invalid = sum(one.invalid for one in batch.counts.values())
        messages = sum(one.messages for one in batch.counts.values())
        limit = self.settings.rejects.max_ratio
        if messages < RATIO_WINDOW or invalid <= limit * messages:
            return None
        return (
            f"paused: {invalid:,} of {messages:,} messages of a batch are rejects; see "
            f"{self.settings.output_dir / REJECTS_FILE} for what is wrong and mend its sender, "
            f"then start this again: it goes on behind them (limit: rejects.max_ratio {limit:g})"
        )

    def _say_whose(self, of_servers: Mapping[tuple[str, str], int]) -> None:
        for reject_class in (RejectClass.LATE, RejectClass.FUTURE):
            found = {one: n for (why, one), n in of_servers.items() if why == reject_class}
            if found:
                worst = sorted(found.items(), key=lambda one: (-one[1], one[0]))[:_SERVERS_SHOWN]
                shown = ", ".join(f"{server_id} {n:,}" for server_id, n in worst)
                more = f" and {len(found) - len(worst):,} more" if len(found) > len(worst) else ""
                self.say(f"{sum(found.values()):,} {reject_class} records: {shown}{more}")

    def _commit(
        self,
        batch: StreamBatch,
        chunk: list[RefusedMessage],
        of_servers: Counter[tuple[str, str]],
    ) -> None:
        lines: list[str] = []
        counts: Counter[str] = Counter()
        positions: dict[Partition, Position] = {}
        for one in chunk:
            name = self.settings.topics.name(one.topic)
            where = Partition(name, one.partition)
            done = self.sink.positions.get(where)
            if done is not None and one.offset < done.next_offset:
                continue
            reject = self._reject(batch, one)
            lines.append(message_reject_line(name, one.partition, one.offset, reject, one.payload))
            counts[reject.reject_class.value] += 1
            if one.server_id is not None:
                of_servers[reject.reject_class.value, one.server_id] += 1
            positions[where] = Position(where, None, one.offset + 1)
        if lines:
            data = Lines("".join(lines).encode(), len(lines))
            self.sink.commit(Batch({REJECTS_FILE: data}, tuple(positions.values()), counts))
            self.counts += counts

    def _reject(self, batch: StreamBatch, message: RefusedMessage) -> Reject:
        if message.ts_ms is None:
            times = TimeReader(self.settings.time.tz, date.min)
            found = decode_message(message.topic, message.payload, times)
            if isinstance(found, Reject):
                return found
            return Reject(
                RejectClass.MALFORMED, "a number, name or nesting too long for Spark's JSON reader"
            )
        skew_s = self.settings.time.max_skew_s
        if message.ts_ms > batch.plan.clock_ms + skew_s * 1000:
            return Reject(
                RejectClass.FUTURE, f"is more than {skew_s} s ahead of the receiving clock"
            )
        return Reject(RejectClass.LATE, "came after its windows had closed")
