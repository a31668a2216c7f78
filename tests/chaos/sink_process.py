"""A small process around the sink alone: starts in milliseconds, so it can be killed everywhere.

Reads requests from its standard input, a JSON object a line, and forks a child for each: the child
stops itself, goes on when a tracer is there, commits batches and notes each in a file of its own.
"""

import json
import os
import signal
import sys
from pathlib import Path

from fleetpulse.domain.position import LastRecord, Partition, Position
from fleetpulse.edges.sink import Batch, FileSpec, Lines, open_sink

HEADER = "ts,server_id,cpu_pct\n"
CPU, MEM, REJECTS = "cpu_data.csv", "mem_data.csv", "rejects.consumer1.jsonl"
FILES = [FileSpec(CPU, HEADER), FileSpec(MEM, HEADER), FileSpec(REJECTS)]
WHERE = Partition("topic-cpu", 0)


def rows(number: int, name: str, scale: int = 1) -> Lines:
    """Return the lines of a batch for a file: different for every batch and file."""
    count = (number * 7 + len(name)) % 13 * scale
    text = "".join(f"2025-10-05T20:53:00Z,{name}-{number}-{n},{n}.5\n" for n in range(count))
    return Lines(text.encode(), count)


def batch(number: int, scale: int) -> Batch:
    """Return a batch: rows of some files, now and then rejects."""
    names = [CPU, MEM] if number % 3 else [CPU, REJECTS]
    lines = {name: found for name in names if (found := rows(number, name, scale)).count}
    position = Position(WHERE, "id", number + 1, last=LastRecord(number, number))
    return Batch(lines, [position], {"malformed": 1} if number % 3 == 0 else {})


def content(done: int, scale: int) -> dict[str, bytes]:
    """Return what the files hold once some batches are done."""
    found = {spec.name: [spec.header.encode()] for spec in FILES}
    for number in range(done):
        for name, lines in batch(number, scale).lines.items():
            found[name].append(lines.data)
    return {name: b"".join(parts) for name, parts in found.items()}


def work(folder: Path, acks: Path, until: int, scale: int) -> None:
    """Commit the batches that are missing, each noted once it is reported done."""
    descriptor = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with open_sink(folder, "consumer1", FILES) as sink:
        done = sink.positions[WHERE].next_offset if WHERE in sink.positions else 0
        os.write(descriptor, b"open %d\n" % done)
        for number in range(done, until):
            sink.commit(batch(number, scale))
            os.write(descriptor, b"%d\n" % (number + 1))


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.kill(os.getpid(), signal.SIGSTOP)
                folder, acks = Path(request["folder"]), Path(request["acks"])
                work(folder, acks, request["until"], request["scale"])
                code = 0
            except Exception as err:  # noqa: BLE001  the parent is told
                sys.stderr.write(f"{type(err).__name__}: {err}\n")
                code = getattr(err, "exit_code", 1)
            finally:
                os._exit(code)
        os.waitpid(pid, os.WUNTRACED)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitpid(pid, 0)[1]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
