"""Rules are data: limits, operators and labels of a family, judged on one window."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from fleetpulse.domain.metric import Family, Metric


class Operator(StrEnum):
    """How a number is held against its limit."""

    AT_LEAST = ">="
    ABOVE = ">"


class Compare(StrEnum):
    """Which number is held against the limit: the two decimals in the row, or the exact one."""

    REPORTED = "reported"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One metric's limit, in millionths of its unit, and the label of a window that is over it."""

    metric: Metric
    operator: Operator
    limit_micros: int
    label: str

    def is_met(self, value: Fraction) -> bool:
        """Tell whether a value, in the metric's unit, is over the limit (or on it, with `>=`)."""
        limit = Fraction(self.limit_micros, 1_000_000)
        return value >= limit if self.operator is Operator.AT_LEAST else value > limit


@dataclass(frozen=True, slots=True)
class Override:
    """Other thresholds for servers whose id matches a glob (`*` any text, `?` one character)."""

    glob: str
    thresholds: tuple[Threshold, Threshold]

    def pattern(self) -> str:
        """Return the glob as a regular expression of the whole id, valid in Python and Java."""
        wild = {"*": ".*", "?": "."}
        return "^" + "".join(wild.get(char) or re.escape(char) for char in self.glob) + "$"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one family: a threshold for each metric and a label for both at once.

    The first override whose glob matches a server replaces the thresholds for it.
    """

    family: Family
    thresholds: tuple[Threshold, Threshold]
    both_label: str
    compare: Compare = Compare.REPORTED
    overrides: tuple[Override, ...] = ()

    def thresholds_for(self, server_id: str) -> tuple[Threshold, Threshold]:
        """Return the thresholds that hold for a server, in the order of the family's metrics."""
        for override in self.overrides:
            if re.match(override.pattern(), server_id):
                return override.thresholds
        return self.thresholds

    def judge(self, server_id: str, values: Sequence[Fraction | None]) -> str:
        """Return the label of a window, or "" for none.

        `values` follow the family's metrics, in their units; None is a metric without a sample,
        which cannot be over its limit.
        """
        met = [
            threshold
            for threshold, value in zip(self.thresholds_for(server_id), values, strict=True)
            if value is not None and threshold.is_met(value)
        ]
        if len(met) == len(values):
            return self.both_label
        return met[0].label if met else ""
