"""What can be set, in which unit, and with which default; config/config.yaml explains each key.

Every model is frozen and refuses unknown keys. Defaults stand here and nowhere else.
"""

import datetime as dt
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fleetpulse.codec.table import record_file_name
from fleetpulse.codec.windows import TimeFormat, windows_file_name
from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU_PCT, DISK_IO, MEM_PCT, NET_IN, Family, Metric, Topic
from fleetpulse.domain.rule import Compare, Operator, Override, RuleSet, Threshold
from fleetpulse.domain.window import WindowSpec

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _host(value: str | None) -> str | None:
    if not value:
        return None
    if not _HOST.fullmatch(value) or re.fullmatch(r"[^:]+:\d+", value):
        raise ValueError("wanted a host name or IP address without a port (see broker.port)")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as err:
        raise ValueError("wanted an IANA zone such as UTC or Europe/Paris") from err
    return value


def _start_date(value: object) -> object:
    if isinstance(value, str) and value not in ("yesterday", "today"):
        try:
            return dt.date.fromisoformat(value)
        except ValueError as err:
            raise ValueError("wanted yesterday, today or a date such as 2025-10-05") from err
    return value


def _decimal(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("wanted a number")  # noqa: TRY004  pydantic catches ValueError only
    return Decimal(str(value))


def _label(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("wanted a label: one line of printable text")
    return value


def _topic_name(value: str) -> str:
    if not _TOPIC.fullmatch(value):
        raise ValueError("wanted a topic name: 1 to 249 of A-Z a-z 0-9 . _ -")
    return value


Host = Annotated[str | None, AfterValidator(_host)]
Limit = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, decimal_places=6)]
Label = Annotated[str, AfterValidator(_label), Field(max_length=200)]
TopicName = Annotated[str, AfterValidator(_topic_name)]
Seconds = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Hosts(_Section):
    """Addresses of the four machines; None is not set."""

    producer: Host = "127.0.0.1"
    broker: Host = "127.0.0.1"
    consumer1: Host = "127.0.0.1"
    consumer2: Host = "127.0.0.1"


class BrokerPart(_Section):
    """Where the broker listens."""

    port: Annotated[int, Field(ge=1, le=65535)] = 9092


class Topics(_Section):
    """Names and shape of the topics: one for each kind of record, and that of the windows."""

    cpu: TopicName = "topic-cpu"
    mem: TopicName = "topic-mem"
    net: TopicName = "topic-net"
    disk: TopicName = "topic-disk"
    windows: TopicName = "fleetpulse-windows"
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 1
    replication_factor: Annotated[int, Field(ge=1, le=32_767)] = 1
    retention_h: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        names = (self.cpu, self.mem, self.net, self.disk, self.windows)
        if len(set(names)) < len(names):
            raise ValueError("two topics have the same name, wanted different ones")
        return self

    def name(self, topic: Topic) -> str:
        """Return the name that a topic has on the broker."""
        return str(getattr(self, topic.key))


class TimePart(_Section):
    """How timestamps are read and printed."""

    date: Annotated[Literal["yesterday", "today"] | dt.date, BeforeValidator(_start_date)] = (
        "yesterday"
    )
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
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


class WindowPart(_Section):
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


class ThresholdPart(_Section):
    """One limit: operator, number in the metric's unit, and the alert's label."""

    op: Annotated[Operator, Field(strict=False)]
    limit: Limit
    label: Label


class BothPart(_Section):
    """The alert when both limits of a family are met in the same window."""

    label: Label


class OverridePart(_Section):
    """What differs from the family's threshold for the servers of a glob."""

    op: Annotated[Operator | None, Field(strict=False)] = None
    limit: Limit | None = None
    label: Label | None = None

    def over(self, base: ThresholdPart) -> ThresholdPart:
        """Return the threshold with what this override replaces."""
        return ThresholdPart(
            op=self.op or base.op,
            limit=base.limit if self.limit is None else self.limit,
            label=self.label or base.label,
        )


_Part = TypeVar("_Part", ThresholdPart, OverridePart)


def _reachable(metric: Metric) -> AfterValidator:
    def check(part: _Part) -> _Part:
        if part.limit is None or part.limit < metric.highest:
            return part
        if part.limit == metric.highest and part.op is not Operator.ABOVE:
            return part
        raise ValueError(
            f"limit {part.op or ''}{part.limit} cannot be met: "
            f"{metric.name} goes from 0 to {metric.highest} {metric.unit}"
        )

    return AfterValidator(check)


_CpuReachable: Final = _reachable(CPU_PCT)
_MemReachable: Final = _reachable(MEM_PCT)
_NetReachable: Final = _reachable(NET_IN)
_DiskReachable: Final = _reachable(DISK_IO)


class CpuMemOverride(_Section):
    """Thresholds of cpu_mem for the servers of a glob."""

    cpu_pct: Annotated[OverridePart, _CpuReachable] = OverridePart()
    mem_pct: Annotated[OverridePart, _MemReachable] = OverridePart()


class NetDiskOverride(_Section):
    """Thresholds of net_disk for the servers of a glob."""

    net_in: Annotated[OverridePart, _NetReachable] = OverridePart()
    disk_io: Annotated[OverridePart, _DiskReachable] = OverridePart()


class CpuMemRules(_Section):
    """Rules for mean CPU and mean memory of a window."""

    cpu_pct: Annotated[ThresholdPart, _CpuReachable] = ThresholdPart(
        op=Operator.AT_LEAST, limit=Decimal(80), label="Performance spike suspected"
    )
    mem_pct: Annotated[ThresholdPart, _MemReachable] = ThresholdPart(
        op=Operator.AT_LEAST, limit=Decimal(89), label="Memory saturation suspected"
    )
    both: BothPart = BothPart(label="Intense resource spike")
    overrides: dict[str, CpuMemOverride] = {}


class NetDiskRules(_Section):
    """Rules for the highest inbound traffic and disk operations of a window."""

    net_in: Annotated[ThresholdPart, _NetReachable] = ThresholdPart(
        op=Operator.AT_LEAST, limit=Decimal(6100), label="Potential DDoS detection"
    )
    disk_io: Annotated[ThresholdPart, _DiskReachable] = ThresholdPart(
        op=Operator.AT_LEAST, limit=Decimal(1800), label="Disk thrash warning"
    )
    both: BothPart = BothPart(label="Sustained load alert")
    overrides: dict[str, NetDiskOverride] = {}


class Rules(_Section):
    """The rules of both families."""

    cpu_mem: CpuMemRules = CpuMemRules()
    net_disk: NetDiskRules = NetDiskRules()


class RejectsPart(_Section):
    """When so much input is bad that a consumer pauses."""

    max_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    max_in_a_row: Annotated[int, Field(ge=1)] = 500


class StreamPart(_Section):
    """How spark-stream runs."""

    master: str | None = None
    trigger_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    max_offsets_per_trigger: Annotated[int, Field(ge=1)] | None = 500_000
    shuffle_partitions: Annotated[int, Field(ge=1)] | None = None
    checkpoint_dir: Annotated[Path | None, Field(strict=False)] = None


class Settings(_Section):
    """All settings of all roles."""

    team_number: Annotated[int, Field(ge=1)] | None = None
    hosts: Hosts = Hosts()
    broker: BrokerPart = BrokerPart()
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
        part: CpuMemRules | NetDiskRules = getattr(self.rules, family.name)
        base = [getattr(part, metric.name) for metric in family.metrics]
        overrides = []
        for glob, override in part.overrides.items():
            above = [getattr(override, metric.name) for metric in family.metrics]
            parts = [one.over(other) for one, other in zip(above, base, strict=True)]
            overrides.append(Override(glob, _thresholds(family, parts)))
        return RuleSet(
            family, _thresholds(family, base), part.both.label, self.compare, tuple(overrides)
        )


def _thresholds(family: Family, parts: Sequence[ThresholdPart]) -> tuple[Threshold, Threshold]:
    first, second = (
        Threshold(metric, part.op, int(part.limit.scaleb(6)), part.label)
        for metric, part in zip(family.metrics, parts, strict=True)
    )
    return first, second
