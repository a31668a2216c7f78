"""An incident that a simulator planted: the truth that windows and alerts can be held against."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleetpulse.domain.metric import Family


@dataclass(frozen=True, slots=True)
class KnownIncident:
    """From `start_ms` to before `end_ms`, every sample of the server is over the label's limits.

    `peaks` is the highest value of each metric that is over its limit, by metric name.
    """

    server_id: str
    family: Family
    label: str
    start_ms: int
    end_ms: int
    peaks: Mapping[str, float]
