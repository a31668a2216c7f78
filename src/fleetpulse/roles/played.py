"""What producing has in common, whatever the source: which samples, how fast, and the result."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import Final

from fleetpulse.domain.errors import FleetpulseError, UsageError
from fleetpulse.domain.reject import RejectClass
from fleetpulse.domain.replay import MAX_SPEED, Pace, Replay, Times, starting_at, within
from fleetpulse.domain.sample import Sample
from fleetpulse.roles.source import Feed, Live, Source, default_speed

PROGRESS_EVERY_S: Final = 0.1
# Shorter waits are not worth a commit.
_WAIT_WORTH_S: Final = 0.1

# Samples sent so far, and how much of the source was read (0 to 1, None when nobody can know).
Progress = Callable[[int, float | None], None]


@dataclass(frozen=True, slots=True)
class ProduceSummary:
    """What a run did.

    `messages` are the acknowledged ones by topic name, `failures` the others by reason; `rejects`
    counts rows and cells by class. `error` is what ended the run badly or left it incomplete: print
    the summary, then raise it.
    """

    messages: Mapping[str, int]
    samples: int
    rejects: Mapping[RejectClass, int]
    failures: Mapping[str, int]
    seconds: float
    error: FleetpulseError | None


def speed_of_source(source: Source, replay: Replay) -> float:
    """Return the speed that a source is played with; UsageError for one that it cannot have."""
    if not isinstance(source, Live):
        return default_speed(source, replay.times) if replay.speed is None else replay.speed
    if replay.speed not in (None, 1):
        raise UsageError("--speed: a live source has the speed of time, wanted 1x or none")
    return MAX_SPEED  # it waits for each second by itself


def chosen(feed: Feed, replay: Replay, start_ms: int | None = None) -> Iterator[Sample]:
    """Return the samples that `replay` wants, from the feed's first on.

    `start_ms` is the instant that `--times now` moves the first one to, None is the present.
    """
    samples = feed.samples
    if replay.duration_s is not None:
        samples = within(samples, round(replay.duration_s * 1000), is_ordered=not feed.is_finite)
    if replay.times is Times.NOW:
        samples = starting_at(samples, now_ms() if start_ms is None else start_ms)
    return samples if replay.limit is None else islice(samples, replay.limit)


def paced(
    samples: Iterator[Sample],
    speed: float,
    stop: Event,
    before_wait: Callable[[], None] = lambda: None,
) -> Iterator[Sample]:
    """Yield each sample when it is due, until `stop` is set.

    `before_wait` is called where there is time until the next one.
    """
    if speed == MAX_SPEED:
        yield from samples
        return
    pace = None
    started_s = 0.0
    for sample in samples:
        if pace is None:
            pace = Pace(speed, sample.ts_ms)
            started_s = time.monotonic()
        if started_s + pace.due_s(sample.ts_ms) - time.monotonic() > _WAIT_WORTH_S:
            before_wait()
        wait_s = started_s + pace.due_s(sample.ts_ms) - time.monotonic()
        if wait_s > 0 and stop.wait(wait_s):
            return
        yield sample


def now_ms() -> int:
    """Return the present in UTC milliseconds."""
    return time.time_ns() // 1_000_000
