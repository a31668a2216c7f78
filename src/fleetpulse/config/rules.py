"""The rules of the alerts as settings."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, Field

from fleetpulse.config.section import Label, Limit, Section
from fleetpulse.domain.metric import CPU_PCT, DISK_IO, MEM_PCT, NET_IN, Family, Metric
from fleetpulse.domain.rule import Compare, Operator, Override, RuleSet, Threshold


class ThresholdPart(Section):
    """One limit: operator, number in the metric's unit, and the alert's label."""

    op: Annotated[Operator, Field(strict=False)]
    limit: Limit
    label: Label


class BothPart(Section):
    """The alert when both limits of a family are met in the same window."""

    label: Label


class OverridePart(Section):
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


class CpuMemOverride(Section):
    """Thresholds of cpu_mem for the servers of a glob."""

    cpu_pct: Annotated[OverridePart, _CpuReachable] = OverridePart()
    mem_pct: Annotated[OverridePart, _MemReachable] = OverridePart()


class NetDiskOverride(Section):
    """Thresholds of net_disk for the servers of a glob."""

    net_in: Annotated[OverridePart, _NetReachable] = OverridePart()
    disk_io: Annotated[OverridePart, _DiskReachable] = OverridePart()


class CpuMemRules(Section):
    """Rules for mean CPU and mean memory of a window."""

    cpu_pct: Annotated[ThresholdPart, _CpuReachable] = ThresholdPart(
        op=Operator.AT_LEAST, limit=Decimal(80), label="Performance spike suspected"
    )
    mem_pct: Annotated[ThresholdPart, _MemReachable] = ThresholdPart(
        op=Operator.AT_LEAST, limit=Decimal(89), label="Memory saturation suspected"
    )
    both: BothPart = BothPart(label="Intense resource spike")
    overrides: dict[str, CpuMemOverride] = Field(default_factory=dict)


class NetDiskRules(Section):
    """Rules for the highest inbound traffic and disk operations of a window."""

    net_in: Annotated[ThresholdPart, _NetReachable] = ThresholdPart(
        op=Operator.AT_LEAST, limit=Decimal(6100), label="Potential DDoS detection"
    )
    disk_io: Annotated[ThresholdPart, _DiskReachable] = ThresholdPart(
        op=Operator.AT_LEAST, limit=Decimal(1800), label="Disk thrash warning"
    )
    both: BothPart = BothPart(label="Sustained load alert")
    overrides: dict[str, NetDiskOverride] = Field(default_factory=dict)


class Rules(Section):
    """The rules of both families."""

    cpu_mem: CpuMemRules = CpuMemRules()
    net_disk: NetDiskRules = NetDiskRules()

    def rule_set(self, family: Family, compare: Compare) -> RuleSet:
        """Return a family's rules as data."""
        part: CpuMemRules | NetDiskRules = getattr(self, family.name)
        base = [getattr(part, metric.name) for metric in family.metrics]
        overrides = []
        for glob, override in part.overrides.items():
            above = [getattr(override, metric.name) for metric in family.metrics]
            parts = [one.over(other) for one, other in zip(above, base, strict=True)]
            overrides.append(Override(glob, _thresholds(family, parts)))
        return RuleSet(
            family, _thresholds(family, base), part.both.label, compare, tuple(overrides)
        )


def _thresholds(family: Family, parts: Sequence[ThresholdPart]) -> tuple[Threshold, Threshold]:
    first, second = (
        Threshold(metric, part.op, int(part.limit.scaleb(6)), part.label)
        for metric, part in zip(family.metrics, parts, strict=True)
    )
    return first, second
