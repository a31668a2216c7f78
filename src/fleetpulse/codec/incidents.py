"""Known incidents as CSV: what a simulated dataset holds, beside the dataset."""

import csv
import io
from typing import Final

from fleetpulse.codec.field import number_text
from fleetpulse.domain.clock import iso_text
from fleetpulse.domain.incident import KnownIncident
from fleetpulse.domain.metric import FAMILIES

_METRICS: Final = tuple(metric for family in FAMILIES for metric in family.metrics)
_COLUMNS: Final = ("server_id", "label", "start", "end")


def incidents_header() -> str:
    """Return the header line with its end; a peak is empty where its metric is not over a limit."""
    return _line([*_COLUMNS, *(f"peak_{metric.name}" for metric in _METRICS)])


def incident_line(incident: KnownIncident) -> str:
    """Return an incident as a line with its end; `end` is exclusive."""
    start, end = iso_text(incident.start_ms), iso_text(incident.end_ms)
    peaks = [
        number_text(incident.peaks[metric.name]) if metric.name in incident.peaks else ""
        for metric in _METRICS
    ]
    return _line([incident.server_id, incident.label, start, end, *peaks])


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
