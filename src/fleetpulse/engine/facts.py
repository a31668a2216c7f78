"""What goes into the engine and what comes out of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.clock import iso_text
from fleetpulse.domain.position import Partition
from fleetpulse.domain.reject import Reject, RejectClass
from fleetpulse.engine.columns import Columns
from fleetpulse.engine.window import Windows


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages of one partition in the order of their offsets; None is one without a value."""

    partition: Partition
    offsets: Sequence[int]
    payloads: Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that counts in no window: rejected by the codec, late, or from the future.

    `server_id` and `ts_ms` are None where the codec rejected it.
    """

    partition: Partition
    offset: int
    payload: bytes | None
    reject: Reject
    server_id: str | None = None
    ts_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """What a step of the engine brought: `accepted` messages, refusals, and windows that closed.

    The windows are in the order in which they closed: those of a step that ends later are never
    before those that end earlier.
    """

    windows: Sequence[Windows] = ()
    refusals: Sequence[Refusal] = ()
    accepted: int = 0

    def rows(self) -> Iterator[WindowRow]:
        """Yield the row of every window."""
        return chain.from_iterable(windows.rows() for windows in self.windows)


@dataclass(frozen=True, slots=True)
class Refused:
    """Valid records that count in no window, and the end of a sentence that says why."""

    reject_class: RejectClass
    columns: Columns
    why: str


def explained(messages: Messages, refused: Refused, ids: Sequence[bytes]) -> Iterator[Refusal]:
    """Yield a refusal for each of these records, whose servers have these ids."""
    rows, instants_ms = refused.columns.rows.tolist(), refused.columns.ts_ms.tolist()
    for row, name, ts_ms in zip(rows, ids, instants_ms, strict=True):
        server_id = name.decode("ascii")
        yield Refusal(
            messages.partition,
            messages.offsets[row],
            messages.payloads[row],
            Reject(refused.reject_class, f"{iso_text(ts_ms)} of {server_id} {refused.why}"),
            server_id,
            ts_ms,
        )
