"""Window messages -> the windows topic, each once, through outages of the broker.

A batch is committed beside the windows' other outputs before it is published: whatever ends the
process, the next start finds it and asks the topic whether it holds that batch already.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Final, Self

from fleetpulse.codec.window_message import decode_window
from fleetpulse.config import Settings
from fleetpulse.domain.closing import ClosedWindow
from fleetpulse.domain.errors import DamagedState, ServiceUnreachable
from fleetpulse.edges.kafka.topics import create_topics
from fleetpulse.edges.kafka.window_log import WindowLog
from fleetpulse.roles.topics import windows_topic

_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Outbox:
    """A batch's number and the values of its messages; each is JSON text of one line."""

    number: int = 0
    values: Sequence[bytes] = ()

    def packed(self) -> bytes:
        """Return it as bytes."""
        return b"\n".join((str(self.number).encode(), *self.values))

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """Return what `packed` made bytes of."""
        number, *values = data.split(b"\n")
        return cls(int(number), values)

    def windows(self, where: str) -> list[ClosedWindow]:
        """Return the windows in the messages; raises DamagedState, naming `where`, for others."""
        found = [decode_window(value) for value in self.values]
        windows = [one for one in found if isinstance(one, ClosedWindow)]
        if len(windows) < len(found):
            raise DamagedState(
                f"{where}: its unpublished windows are damaged; put back a copy of the whole "
                "folder, or move the folder away and start again from the topics"
            )
        return windows


@dataclass(slots=True)
class Publisher:
    """Publishes the batches of one stream, the first time after it made the topic if need be."""

    settings: Settings
    stream_id: str
    stop: Event
    say: Callable[[str], None]
    _log: WindowLog | None = field(default=None, init=False)

    def publish(self, number: int, keys: Iterable[bytes], values: Sequence[bytes]) -> bool:
        """Put a batch into the topic unless it is there or empty.

        Waits while the broker is away; False where the stop was set meanwhile. Raises
        AlreadyRunning where another process publishes for the same stream.
        """
        if not values:
            return True
        pairs = list(zip(keys, values, strict=True))
        told = ""
        while True:
            try:
                self._attempt(number, pairs)
            except ServiceUnreachable as err:
                self.close()
                if str(err) != told:
                    told = str(err)
                    self.say(f"the windows wait for their topic, nothing is lost: {told}")
                if self.stop.wait(_WAIT_S):
                    return False
            else:
                return True

    def close(self) -> None:
        """Leave the topic."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _attempt(self, number: int, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        if self._log is None:
            bootstrap = self.settings.bootstrap()
            create_topics(bootstrap, [windows_topic(self.settings)])
            self._log = WindowLog(bootstrap, self.settings.topics.windows, self.stream_id)
        if number < self._log.next_batch:
            return
        for key, value in pairs:
            self._log.send(key, value)
        self._log.commit(number)
