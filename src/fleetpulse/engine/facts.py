"""What goes into the engine and what comes out of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.position import Partition
from fleetpulse.domain.reject import Reject
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
