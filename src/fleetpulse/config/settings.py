"""What can be set, in which unit, and with which default; config/config.yaml explains each key.

Every model is frozen and refuses unknown keys. Defaults stand here and in `rules`, nowhere else.
"""

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from fleetpulse.codec.table import record_file_name
from fleetpulse.codec.windows import TimeFormat, windows_file_name
from fleetpulse.config.rules import Rules
from fleetpulse.config.section import (
    Host,
    Network,
    OptionalPath,
    Seconds,
    Section,
    StartDate,
    TopicName,
    UserName,
    ZoneName,
)
from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import Family, Topic
from fleetpulse.domain.rule import Compare, RuleSet
from fleetpulse.domain.window import WindowSpec


class Hosts(Section):
    """Addresses of the four machines; None is not set."""

    producer: Host = "127.0.0.1"
    broker: Host = "127.0.0.1"
    consumer1: Host = "127.0.0.1"
    consumer2: Host = "127.0.0.1"


class BrokerPart(Section):
    """Where the broker listens."""

    port: Annotated[int, Field(ge=1, le=65535)] = 9092


class OverlayPart(Section):
    """The VPN that joins the machines."""

    network: Network = None


class ZeroTierPart(Section):
    """How to ask this machine's ZeroTier service."""

    port: Annotated[int, Field(ge=1, le=65535)] = 9993
    token_file: OptionalPath = None


class SecurityPart(Section):
    """How roles and broker know each other; a file's path is relative to the settings file."""

    tls: bool = False
    ca_file: OptionalPath = None
    certificate_file: OptionalPath = None
    key_file: OptionalPath = None
    user: UserName = None
    password_file: OptionalPath = None
    users_dir: OptionalPath = None
    allow_plaintext: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file belong together, one is missing")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together, one is missing")
        for name in ("ca_file", "certificate_file", "users_dir"):
            if getattr(self, name) is not None and not self.tls:
                raise ValueError(f"{name} is set, but tls is false: set tls: true, or remove it")
        if self.users_dir is not None and (self.ca_file is None or self.certificate_file is None):
            raise ValueError("users_dir is set: a secured broker needs ca_file, certificate_file")
        return self


class Topics(Section):
    """Names and shape of the topics: one for each kind of record, windows, and positions."""

    cpu: TopicName = "topic-cpu"
    mem: TopicName = "topic-mem"
    net: TopicName = "topic-net"
    disk: TopicName = "topic-disk"
    windows: TopicName = "fleetpulse-windows"
    positions: TopicName = "fleetpulse-positions"
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 1
    replication_factor: Annotated[int, Field(ge=1, le=32_767)] = 1
    retention_h: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        names = (self.cpu, self.mem, self.net, self.disk, self.windows, self.positions)
        if len(set(names)) < len(names):
            raise ValueError("two topics have the same name, wanted different ones")
        return self

    def name(self, topic: Topic) -> str:
        """Return the name that a topic has on the broker."""
        return str(getattr(self, topic.key))


class TimePart(Section):
    """How timestamps are read and printed."""

    date: StartDate = "yesterday"
    zone: ZoneName = "UTC"
    output: Annotated[TimeFormat, Field(strict=False)] = TimeFormat.AUTO
    max_skew_s: Seconds = 60

    @property
    def tz(self) -> dt.tzinfo:
        """Return the zone of naive timestamps and of the outputs."""
        return dt.UTC if self.zone == "UTC" else ZoneInfo(self.zone)

    def start_date(self, today: dt.date) -> dt.date:
        """Return the date of the first clock time of a source; `today` is that of the zone."""
        if isinstance(self.date, dt.date):
            return self.date
        return today - dt.timedelta(days=1) if self.date == "yesterday" else today


class WindowPart(Section):
    """Size and place of the windows, and when a live one closes."""

    size_s: Annotated[int, Field(ge=1, le=86_400)] = 30
    slide_s: Annotated[int, Field(ge=1, le=86_400)] = 10
    origin: Literal["epoch", "first_event"] | Seconds = "epoch"
    leading: Literal["drop", "keep"] = "drop"
    lateness_s: Seconds = 5
    idle_close_s: Annotated[int, Field(ge=1)] = 15

    @model_validator(mode="after")
    def _is_made_of_slides(self) -> Self:
        if self.size_s % self.slide_s:
            raise ValueError(
                f"size_s {self.size_s} is no whole multiple of slide_s {self.slide_s}, "
                "wanted one such as 30 and 10"
            )
        if isinstance(self.origin, int) and self.origin >= self.slide_s:
            raise ValueError(
                f"origin {self.origin} is not below slide_s {self.slide_s}, "
                "wanted epoch, first_event or a number of seconds below the slide"
            )
        return self

    def spec(self, first_event_ms: int | None = None) -> WindowSpec:
        """Return the windows; `first_event_ms` is the input's earliest instant, for first_event."""
        size_ms, slide_ms = self.size_s * 1000, self.slide_s * 1000
        origin_ms = self.origin * 1000 if isinstance(self.origin, int) else 0
        if self.origin == "first_event" and first_event_ms is not None:
            origin_ms = WindowSpec(size_ms, slide_ms).origin_of_first_event(first_event_ms)
        return WindowSpec(size_ms, slide_ms, origin_ms, self.leading == "drop")


class RejectsPart(Section):
    """When so much input is bad that a consumer pauses."""

    max_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    max_in_a_row: Annotated[int, Field(ge=1)] = 500


class StreamPart(Section):
    """How spark-stream runs."""

    master: str | None = None
    trigger_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    max_offsets_per_trigger: Annotated[int, Field(ge=1)] | None = 500_000
    shuffle_partitions: Annotated[int, Field(ge=1)] | None = None
    checkpoint_dir: OptionalPath = None


class Settings(Section):
    """All settings of all roles."""

    team_number: Annotated[int, Field(ge=1)] | None = None
    hosts: Hosts = Hosts()
    broker: BrokerPart = BrokerPart()
    overlay: OverlayPart = OverlayPart()
    zerotier: ZeroTierPart = ZeroTierPart()
    security: SecurityPart = SecurityPart()
    topics: Topics = Topics()
    time: TimePart = TimePart()
    window: WindowPart = WindowPart()
    arithmetic: Annotated[Arithmetic, Field(strict=False)] = Arithmetic.EXACT
    compare: Annotated[Compare, Field(strict=False)] = Compare.REPORTED
    rules: Rules = Rules()
    rejects: RejectsPart = RejectsPart()
    stream: StreamPart = StreamPart()
    output_dir: Annotated[Path, Field(strict=False)] = Path("output")

    def bootstrap(self) -> str:
        """Return the broker's address as `host:port`; UsageError when no host is set."""
        if self.hosts.broker is None:
            raise UsageError(
                "no broker address: set hosts.broker in the settings file "
                "(or FLEETPULSE__HOSTS__BROKER) to the broker's ZeroTier or LAN address"
            )
        host = f"[{self.hosts.broker}]" if ":" in self.hosts.broker else self.hosts.broker
        return f"{host}:{self.broker.port}"

    def record_path(self, topic: Topic) -> Path:
        """Return the file that a consumer keeps for a topic."""
        return self.output_dir / record_file_name(topic)

    def windows_path(self, family: Family) -> Path:
        """Return the file of a family's window rows."""
        return self.output_dir / windows_file_name(family, self.team_number)

    def stream_path(self) -> Path:
        """Return the folder of spark-stream's checkpoint."""
        return self.stream.checkpoint_dir or self.output_dir / "spark-stream"

    def rule_set(self, family: Family) -> RuleSet:
        """Return a family's rules as data."""
        return self.rules.rule_set(family, self.compare)
