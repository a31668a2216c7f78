"""Messages of one partition as the client gives them, and the position after them."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast, overload

from confluent_kafka import KafkaError, Message

from fleetpulse.domain.position import LastRecord, Partition, Position


class ConsumedMessage(Protocol):
    """A message as the client gives it: place, time and value are never None once consumed."""

    def error(self) -> KafkaError | None:
        """Return what the client reports instead of a message."""
        ...

    def topic(self) -> str:
        """Return the name of its topic."""
        ...

    def partition(self) -> int:
        """Return the number of its partition."""
        ...

    def offset(self) -> int:
        """Return its offset, or that of the end for the report of one."""
        ...

    def leader_epoch(self) -> int | None:
        """Return the epoch of the leader that wrote it."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of its timestamp, and the milliseconds."""
        ...

    def key(self) -> bytes | None:
        """Return its key."""
        ...

    def value(self) -> bytes | None:
        """Return its value."""
        ...


# Called once a message: the method itself, without the search for it.
_value = cast("Callable[[ConsumedMessage], bytes | None]", Message.value)


class _Offsets(Sequence[int]):
    """The offsets of messages."""

    def __init__(self, messages: Sequence[ConsumedMessage]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[int]: ...
    def __getitem__(self, place: int | slice) -> int | Sequence[int]:
        if isinstance(place, slice):
            return _Offsets(self._messages[place])
        return self._messages[place].offset()


@dataclass(frozen=True, slots=True)
class Fetched:
    """Messages of one partition in the order of their offsets; `end` is the log's end, if reached.

    Offsets may have holes: aborted records and transaction markers are not messages.
    """

    partition: Partition
    messages: Sequence[ConsumedMessage]
    end: int | None

    @property
    def offsets(self) -> Sequence[int]:
        """The offset of each message; asked for only where somebody wants one."""
        return _Offsets(self.messages)

    @property
    def payloads(self) -> list[bytes | None]:
        """The value of each message, None for one without."""
        return list(map(_value, self.messages))

    def position_after(self, taken: int, before: Position) -> Position:
        """Return the position once the first `taken` messages are done."""
        after = before
        if taken:
            message = self.messages[taken - 1]
            after = replace(
                before,
                # The committed offset is the next one to read, hence + 1.
                next_offset=message.offset() + 1,
                leader_epoch=message.leader_epoch(),
                last=LastRecord(message.offset(), fingerprint(message)),
            )
        if taken == len(self.messages) and self.end is not None:
            after = replace(after, next_offset=max(after.next_offset, self.end))
        return after


def fingerprint(message: ConsumedMessage) -> int:
    """Return the CRC-32 of key, value and timestamp."""
    _, timestamp_ms = message.timestamp()
    crc = zlib.crc32(message.key() or b"")
    crc = zlib.crc32(message.value() or b"", crc)
    return zlib.crc32(str(timestamp_ms).encode(), crc)
