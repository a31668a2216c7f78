"""The folder of a stream: Spark's checkpoint, and the notices to its topics.

    query/    Spark's own checkpoint; `offsets/N` says what batch N reads, and at which time
    notices/  JSON lines {"topic","ts_ms"}; a topic's stream takes them as if a record came

Spark writes `offsets/N` before it runs batch N and runs it again from that file after a crash, so a
batch is a function of the file. Its form is a version line, a JSON object of facts, and a line for
each source: for Kafka the next offsets by topic and partition, behind the batch.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import DamagedState, DiskError

_NOTICE_SUFFIX: Final = ".json"
_FOLDER_MODE: Final = 0o750


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What Spark noted of a batch before it ran.

    `clock_ms` is the wall clock of the batch, `watermark_ms` what closes windows in it and
    `late_ms` what makes records late. `starts` and `ends` are offsets by topic name and partition,
    the end not included; a partition without a start is read from its earliest offset.
    """

    batch_id: int
    clock_ms: int
    watermark_ms: int
    late_ms: int
    starts: Mapping[str, Mapping[str, int]]
    ends: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class StreamFolder:
    """The folder by its path; `prepare` makes it."""

    path: Path

    @property
    def query_path(self) -> Path:
        """Return Spark's own checkpoint."""
        return self.path / "query"

    @property
    def notices_path(self) -> Path:
        """Return the folder that the streams read notices from."""
        return self.path / "notices"

    def prepare(self) -> None:
        """Make what is missing; DiskError where that fails."""
        try:
            for folder in (self.query_path, self.notices_path):
                folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as err:
            raise DiskError(
                f"{self.path}: cannot make the folder ({err.strerror}); check stream.checkpoint_dir"
            ) from err

    def plan(self, batch_id: int) -> BatchPlan:
        """Return what a planned batch is; DamagedState where its file is not of the known form."""
        clock_ms, watermark_ms, ends = self._read(batch_id)
        if batch_id > 0:
            _, late_ms, starts = self._read(batch_id - 1)
        else:
            late_ms, starts = 0, self._first_offsets()
        return BatchPlan(batch_id, clock_ms, watermark_ms, late_ms, starts, ends)

    def notify(self, name: str, instants_ms: Mapping[str, int]) -> None:
        """Write a notice, which the streams find with their next look; `name` is its own."""
        lines = "".join(
            json.dumps({"topic": topic, "ts_ms": ts_ms}) + "\n"
            for topic, ts_ms in instants_ms.items()
        )
        # Spark leaves out names that begin with a dot.
        partial = self.notices_path / f".{name}.partial"
        try:
            with partial.open("w", encoding="ascii") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.notices_path / f"{name}{_NOTICE_SUFFIX}")
        except OSError as err:
            raise DiskError(f"{partial}: cannot write it ({err.strerror}); check the disk") from err

    def forget_notices(self, before: int) -> None:
        """Remove notices whose name is a number below `before`, which no batch reads any more."""
        for path in self.notices_path.glob(f"*{_NOTICE_SUFFIX}"):
            if path.stem.isdigit() and int(path.stem) < before:
                try:
                    path.unlink(missing_ok=True)
                except OSError as err:
                    raise DiskError(
                        f"{path}: cannot remove it ({err.strerror}); check the folder"
                    ) from err

    def _read(self, batch_id: int) -> tuple[int, int, dict[str, dict[str, int]]]:
        """Return the clock and the watermark of a batch, and the offsets behind it."""
        path = self.query_path / "offsets" / str(batch_id)
        with self._known(path):
            _version, text, *sources = path.read_text(encoding="utf-8").splitlines()
            facts = json.loads(text)
            clock_ms, watermark_ms = facts["batchTimestampMs"], facts["batchWatermarkMs"]
            return int(clock_ms), int(watermark_ms), _offsets(sources)

    def _first_offsets(self) -> dict[str, dict[str, int]]:
        """Return where the first batch began, as each source noted it."""
        found: dict[str, dict[str, int]] = {}
        for path in (self.query_path / "sources").glob("*/0"):
            with self._known(path):
                found |= _offsets(path.read_text(encoding="utf-8").splitlines())
        return found

    @contextmanager
    def _known(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as err:
            raise DamagedState(
                f"{path}: not the plan of a batch ({err}); put the folder {self.path} back from a "
                "copy, or choose another with stream.checkpoint_dir to start anew"
            ) from err


def _offsets(lines: list[str]) -> dict[str, dict[str, int]]:
    """Return the Kafka offsets among the lines; other sources note numbers or nothing."""
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        if not line.startswith("{"):
            continue
        for topic, offsets in json.loads(line).items():
            if isinstance(offsets, dict):
                found[topic] = {str(number): int(next_) for number, next_ in offsets.items()}
    return found
