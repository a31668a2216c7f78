"""Closed windows -> the windows topic, each once, through outages of the broker.

A batch is committed beside the windows' other outputs before it is published: whatever ends the
process, the next start finds it and asks the topic whether it holds that batch already.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import ServiceUnreachable
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.topics import create_topics
from fleetpulse.edges.kafka.window_log import WindowLog
from fleetpulse.engine import Windows, published
from fleetpulse.roles.topics import windows_topic

_WAIT_S: Final = 1.0
_TOPIC_TIMEOUT_S: Final = 3.0


@dataclass(slots=True)
class Publisher:
    """Publishes the batches of one stream, the first time after it made the topic if need be.

    It works beside the caller, who reads and alerts on while a topic is slow.
    """

    settings: Settings
    access: KafkaAccess
    stream_id: str
    stop: Event
    say: Callable[[str], None]
    _log: WindowLog | None = field(default=None, init=False)
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1), init=False)

    def start(self, number: int, windows: Sequence[Windows]) -> "Future[bool]":
        """Begin to put a batch into the topic unless it is there; one at a time.

        It waits while the broker is away. The result is False where the stop was set meanwhile; it
        raises AlreadyRunning where another process publishes for the same stream.
        """
        return self._worker.submit(self._publish, number, windows)

    def close(self) -> None:
        """Leave the topic: a batch that is under way ends before, one that waits is given up.

        Sets the stop, because an error that ends the role does not.
        """
        self.stop.set()
        self._worker.shutdown()
        self._leave()

    def _publish(self, number: int, windows: Sequence[Windows]) -> bool:
        told = ""
        while True:
            try:
                self._attempt(number, windows)
            except ServiceUnreachable as err:
                self._leave()
                if str(err) != told:
                    told = str(err)
                    self.say(f"the windows wait for their topic, nothing is lost: {told}")
                if self.stop.wait(_WAIT_S):
                    return False
            else:
                return True

    def _leave(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _attempt(self, number: int, windows: Sequence[Windows]) -> None:
        if self._log is None:
            create_topics(self.access, [windows_topic(self.settings)], _TOPIC_TIMEOUT_S)
            name = self.settings.topics.windows
            self._log = WindowLog(self.access, name, self.stream_id, self.stop)
        if number < self._log.next_batch:
            return
        for part in windows:
            for key, value in zip(part.server_ids.tolist(), published(part), strict=True):
                self._log.send(key, value)
        self._log.commit(number)
