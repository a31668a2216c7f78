"""monitor: the four topics -> windows, alerts as they happen, and rejects, each exactly once."""

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, tzinfo
from threading import Event
from typing import Final

from fleetpulse.codec.rejects import rejects_file_name
from fleetpulse.codec.windows import windows_header
from fleetpulse.config import Settings
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import FAMILIES, TOPICS
from fleetpulse.domain.position import OnGap
from fleetpulse.domain.text import duration_s
from fleetpulse.edges.kafka.consumer import LogConsumer
from fleetpulse.edges.sink import Batch, FileSpec, open_sink
from fleetpulse.roles.access import kafka_access
from fleetpulse.roles.live import LiveWindows
from fleetpulse.roles.locate import LOST_OFFSETS, Locator
from fleetpulse.roles.pause import pause, reject_alarm
from fleetpulse.roles.publish import Publisher
from fleetpulse.roles.release import Outputs, Release, Told
from fleetpulse.roles.watch import Watch

CONNECT_TIMEOUT_S: Final = 30.0
ROLE: Final = "monitor"
REJECTS_FILE: Final = rejects_file_name(ROLE)
_STREAM_NOTE: Final = "stream"


@dataclass(frozen=True, slots=True)
class MonitorOptions:
    """What a run does beside its settings.

    The first start begins with messages dated `since_ms` or later (0: the oldest, None: only what
    comes from now on). It ends once nothing came for `until_idle_s` (None: never). `is_csv` appends
    the windows to the CSV files, `is_published` sends them to their topic.
    """

    since_ms: int | None = None
    until_idle_s: float | None = None
    is_csv: bool = False
    is_published: bool = True
    on_gap: OnGap = OnGap.STOP
    connect_timeout_s: float = CONNECT_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class MonitorSummary:
    """What a run did: windows by family, alerts by label, refused messages by class.

    `lost_offsets` counts what gaps of the topics ever took. `is_caught_up` is True where the run
    ended because all was read and nothing new came.
    """

    messages: int
    windows: Mapping[str, int]
    alerts: Mapping[str, int]
    refused: Mapping[str, int]
    lost_offsets: int
    is_caught_up: bool
    seconds: float


def monitor(
    settings: Settings,
    options: MonitorOptions,
    *,
    stop: Event,
    say: Callable[[str], None],
    told: Told,
) -> MonitorSummary:
    """Watch the topics until `stop` is set, or all is read and nothing comes.

    When too much input is bad the role says so every minute and waits for `stop`; a run with
    `until_idle_s` raises FleetpulseError instead. Raises UsageError, ServiceUnreachable (no broker
    or topics within the connect timeout; later outages are waited out), AlreadyRunning, DiskError,
    DamagedState and DataChanged (a file, or a topic that broke while `on_gap` is stop).
    """
    started_s = time.monotonic()
    if settings.window.origin == "first_event":
        raise UsageError(
            "window.origin is first_event, which only a batch job can know; set epoch or a number "
            "of seconds for monitor"
        )
    files = [FileSpec(REJECTS_FILE)]
    if options.is_csv:
        paths = {family: settings.windows_path(family) for family in FAMILIES}
        files += [FileSpec(path.name, windows_header(one)) for one, path in paths.items()]
    with ExitStack() as kept:
        sink = kept.enter_context(open_sink(settings.output_dir, ROLE, files))
        for file_name, size_bytes in sink.cut_bytes.items():
            say(f"{file_name}: cut {size_bytes} bytes that an earlier run did not commit")
        notes = sink.notes()
        if _STREAM_NOTE not in notes:
            notes[_STREAM_NOTE] = secrets.token_hex(8).encode()
            sink.commit(Batch(notes={_STREAM_NOTE: notes[_STREAM_NOTE]}))
        where = str(settings.output_dir / f"{ROLE}.state.db")
        live = LiveWindows.of(settings, notes, time.time_ns() // 1_000_000, where)
        names = [settings.topics.name(topic) for topic in TOPICS]
        access = kafka_access(settings, say)
        consumer = LogConsumer(access, f"fleetpulse-{ROLE}", names)
        kept.callback(consumer.close)
        locator = Locator(consumer, sink, options.on_gap, stop, say, options.since_ms)
        publisher = Publisher(settings, access, notes[_STREAM_NOTE].decode(), stop, say)
        kept.callback(publisher.close)
        outputs = Outputs(REJECTS_FILE, options.is_csv, options.is_published)
        release = Release(settings, sink, publisher, told, outputs, say)
        watch = Watch(locator, live, release, started_s)
        is_caught_up = False
        if watch.begin(options.connect_timeout_s):
            release.resume(notes, where)
            is_caught_up = watch.run(options.until_idle_s)
        if live.tripped:
            alarm = reject_alarm(settings, REJECTS_FILE, live.tripped)
            pause(alarm, stop, say, is_to_end=options.until_idle_s is not None)
        return MonitorSummary(
            watch.messages,
            dict(release.windows),
            dict(release.alerts),
            dict(release.refused),
            sink.counters.get(LOST_OFFSETS, 0),
            is_caught_up,
            time.monotonic() - started_s,
        )


def instant_since(text: str, zone: tzinfo) -> int:
    """Return the instant that a user means, in UTC milliseconds, 1 at least.

    `text` is a duration before now, or an ISO time (of `zone` where it names none). Raises
    UsageError for anything else.
    """
    try:
        return max(1, round((time.time() - duration_s(text)) * 1000))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError as err:
        raise UsageError(
            f"--since: {text[:40]!r} is no time, wanted a duration such as 2h or an ISO time such "
            "as 2025-10-05T20:53:00Z"
        ) from err
    aware = found if found.tzinfo else found.replace(tzinfo=zone)
    return max(1, round(aware.timestamp() * 1000))
