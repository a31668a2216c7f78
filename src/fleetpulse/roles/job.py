"""A batch job's files: what is asked for, and what it comes to with the settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetpulse.codec.rejects import rejects_file_name
from fleetpulse.codec.table import record_file_glob
from fleetpulse.config import Settings
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU_MEM, NET_DISK, Family, Topic
from fleetpulse.edges.sink import committed_bytes

_CONSUMERS: Final = {CPU_MEM: "consumer1", NET_DISK: "consumer2"}


@dataclass(frozen=True, slots=True)
class Job:
    """A family to analyze; files that are None are those of the settings.

    `name` is the command's; the rejects are kept under it.
    """

    name: str
    family: Family
    inputs: tuple[Path | None, Path | None] = (None, None)
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of a job; `inputs` follow the family's metrics.

    A metric has several where its topic is shared among consumers.
    """

    family: Family
    inputs: tuple[tuple[Path, ...], tuple[Path, ...]]
    out: Path
    rejects_path: Path


def plan_of(settings: Settings, job: Job) -> Plan:
    """Return the files of a job.

    Raises UsageError for those that cannot be what they are for, and what `committed_bytes` raises.
    """
    first, second = (
        _checked_inputs(settings, job.family, topic, given)
        for given, topic in zip(job.inputs, job.family.topics, strict=True)
    )
    out = job.out or settings.windows_path(job.family)
    if out.is_dir():
        raise UsageError(f"{out}: this is a folder, wanted a file to write")
    if out.resolve() in [path.resolve() for path in first + second]:
        raise UsageError(f"{out}: this is an input of the same job, wanted another file to write")
    check_nobodys(out)
    return Plan(job.family, (first, second), out, out.with_name(rejects_file_name(job.name)))


def check_nobodys(out: Path) -> None:
    """Raise UsageError for a file that a role keeps, and what `committed_bytes` raises."""
    if committed_bytes(out) is not None:
        raise UsageError(
            f"{out}: a role that runs on (monitor, or a consumer) keeps this file; give one of "
            "them another output_dir, or a batch job another --out"
        )


def _checked_inputs(
    settings: Settings, family: Family, topic: Topic, given: Path | None
) -> tuple[Path, ...]:
    if given is not None:
        if not given.exists():
            raise UsageError(f"{given}: there is no such file; check the path")
        return (given,)
    whole = settings.record_path(topic)
    shares = sorted(settings.output_dir.glob(record_file_glob(topic)))
    found = (*([whole] if whole.exists() else []), *shares)
    if not found:
        raise UsageError(f"{_CONSUMERS[family]} has not written {whole} yet: run it first")
    return found
