"""A relay between a port of a host and whoever connects to it: what is said there comes late, or a
connection ends on one side only.

The kernel of many machines cannot delay packets; here bytes wait instead, which clients cannot tell
from a long way.
"""

import asyncio
from asyncio import Queue, StreamReader, StreamWriter, Task, TaskGroup
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread

from lab import OVERLAY_INTERFACE, Host

_PORT = 19_999
_TABLE = "relay"
_CHUNK_BYTES = 65_536
_START_S = 10.0


@dataclass
class Relay:
    """What happens to connections that are relayed; `hits` counts it.

    Bytes wait for `delay_s` in each direction. After `half_close_s` the host's side of a connection
    seems to say no more (FIN), and still listens.
    """

    host: Host
    port: int
    delay_s: float = 0.0
    half_close_s: float | None = None
    _hits: int = 0
    _writers: set[StreamWriter] = field(default_factory=set)
    _under_way: set[Task[None] | None] = field(default_factory=set)

    def hits(self) -> int:
        return self._hits

    async def serve(self, ready: Event, end: Event) -> None:
        """Relay until `end` is set; then all connections are gone."""
        server = await asyncio.start_server(self._relay, self.host.address, _PORT)
        ready.set()
        await asyncio.to_thread(end.wait)
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._under_way)

    async def _relay(self, near: StreamReader, near_writer: StreamWriter) -> None:
        try:
            far, far_writer = await asyncio.open_connection(self.host.address, self.port)
        except OSError:
            near_writer.transport.abort()
            return
        self._writers |= {near_writer, far_writer}
        self._under_way.add(asyncio.current_task())
        with suppress(OSError, ExceptionGroup):
            async with TaskGroup() as both:
                both.create_task(self._hand_on(near, far_writer, None))
                both.create_task(self._hand_on(far, near_writer, self.half_close_s))
        for writer in (near_writer, far_writer):
            self._writers.discard(writer)
            writer.transport.abort()

    async def _hand_on(
        self, reader: StreamReader, writer: StreamWriter, end_s: float | None
    ) -> None:
        now_s = asyncio.get_running_loop().time
        waiting: Queue[tuple[float, bytes]] = Queue()

        async def take() -> None:
            data = b"-"
            while data:
                data = await reader.read(_CHUNK_BYTES)
                waiting.put_nowait((now_s() + self.delay_s, data))

        async def give() -> None:
            data = b"-"
            while data:
                due_s, data = await waiting.get()
                await asyncio.sleep(due_s - now_s())
                self._hits += bool(self.delay_s)
                writer.write(data)
                await writer.drain()

        async with TaskGroup() as both:
            taking = both.create_task(take())
            try:
                async with asyncio.timeout(end_s):
                    await give()
            except TimeoutError:
                self._hits += 1
            writer.write_eof()
            await taking


@contextmanager
def relayed(relay: Relay) -> Iterator[Relay]:
    """Let all new connections to the port take the way of a relay; what is open breaks."""
    ready, end = Event(), Event()

    def serve() -> None:
        with relay.host.inside():
            asyncio.run(relay.serve(ready, end))

    rule = f'iifname "{OVERLAY_INTERFACE}" tcp dport {relay.port} redirect to :{_PORT};'
    chain = f"chain to {{ type nat hook prerouting priority dstnat; {rule} }}"
    with ExitStack() as made:
        thread = Thread(target=serve)
        thread.start()
        made.callback(thread.join)
        made.callback(end.set)
        assert ready.wait(_START_S)
        relay.host.tool("nft", "-f", "-", given=f"table inet {_TABLE} {{\n{chain}\n}}\n")
        try:
            yield relay
        finally:
            # With the rule gone the other side would not hear of the end.
            made.close()
            relay.host.tool("nft", "delete", "table", "inet", _TABLE)
