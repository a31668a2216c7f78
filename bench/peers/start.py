"""One run of a contestant, and how it is started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contestant; `messages` is 0 when they keep coming.

    Only the product writes to `windows_topic`, which is there already.
    """

    bootstrap: str
    topics: tuple[str, ...]
    out: Path
    messages: int
    lateness_ms: int
    windows_topic: str

    def arguments(self) -> list[str]:
        """Return the options that every program of ours takes."""
        return [
            *("--bootstrap", self.bootstrap, "--topics", ",".join(self.topics)),
            *("--out", str(self.out), "--messages", str(self.messages)),
            *("--lateness-ms", str(self.lateness_ms)),
        ]


@dataclass(frozen=True, slots=True)
class Start:
    """How a run is started."""

    command: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
