"""`audit`: is each record in exactly one place."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetpulse.cli.console import (
    ConfigOption,
    JsonOption,
    print_json,
    progress_on,
    settings_of,
    speaker,
)
from fleetpulse.cli.consume import ConnectOption

if TYPE_CHECKING:
    from fleetpulse.roles.audit import RoleAudit
    from fleetpulse.roles.auditing.finding import Findings
    from fleetpulse.roles.auditing.topic import TopicAudit


class Role(StrEnum):
    """The consumers."""

    CONSUMER1 = "consumer1"
    CONSUMER2 = "consumer2"


def audit(
    *,
    role: Annotated[
        Role | None, typer.Option(help="The consumer to look at. [default: each that ran here]")
    ] = None,
    connect_timeout: ConnectOption = 30.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that each record is in exactly one place.

    Reads the topics again as far as a consumer has come, and compares each message with the rows
    and rejects on disk. Works while consumers run, and changes nothing. Ends with 1 where anything
    is missing, twice, torn or changed, and names it.
    """
    from fleetpulse.roles import audit as audit_role  # noqa: PLC0415  starts alone

    settings = settings_of(config).settings
    with progress_on("records") as report:
        found = audit_role.audit(
            settings,
            [role.value] if role else [],
            say=speaker("audit"),
            report=report,
            timeout_s=connect_timeout,
        )
    is_exact = all(one.is_exact for one in found)
    if as_json:
        print_json({"is_exact": is_exact, "consumers": {one.name: _json(one) for one in found}})
    else:
        for one in found:
            _print(one)
    if not is_exact:
        raise typer.Exit(1)


def _print(found: "RoleAudit") -> None:
    typer.echo(f"{found.name}:")
    for topic in found.topics:
        _print_topic(topic)
    for finding in found.unplaced.named:
        typer.echo(f"    {finding}")
    _print_rest(found.unplaced)
    if found.lost_offsets:
        typer.echo(f"  lost before they were read: {found.lost_offsets:,} offsets")
    gone = sum(topic.gone_offsets for topic in found.topics)
    part = f" of what can be checked ({gone:,} offsets cannot)" if gone else ""
    if found.is_exact:
        typer.echo(f"  every record{part} is in exactly one place")
    else:
        typer.echo(f"  NOT every record{part} is in exactly one place")


def _print_topic(topic: "TopicAudit") -> None:
    records, rows, rejects = (
        sum(getattr(one, name) for one in topic.partitions)
        for name in ("records", "rows", "rejects")
    )
    typer.echo(
        f"  {topic.topic_name} -> {topic.file_name}: {records:,} records, {rows:,} rows, "
        f"{rejects:,} rejects: {_faults(topic.findings)}"
    )
    if len(topic.partitions) > 1:
        for one in topic.partitions:
            typer.echo(
                f"    {one.partition}: {one.records:,} records below offset {one.next_offset}, "
                f"{one.rows:,} rows, {one.rejects:,} rejects"
            )
    if topic.gone_offsets:
        typer.echo(
            f"    not checkable: {topic.gone_offsets:,} offsets that Kafka no longer has "
            f"({topic.gone_rows:,} rows, {topic.gone_rejects:,} rejects)"
        )
    for finding in topic.findings.named:
        typer.echo(f"    {finding}")
    _print_rest(topic.findings)


def _print_rest(findings: "Findings") -> None:
    for fault, count in findings.counts.items():
        if rest := count - sum(one.fault is fault for one in findings.named):
            typer.echo(f"    {fault}: {rest:,} more")


def _faults(findings: "Findings") -> str:
    """Return the counts that everybody asks for, and the others where there are some."""
    always = ("missing", "duplicate", "torn")
    shown = dict.fromkeys(always, 0) | {str(one): n for one, n in findings.counts.items()}
    return ", ".join(f"{n:,} {name}" for name, n in shown.items() if n or name in always)


def _json(found: "RoleAudit") -> dict[str, Any]:
    return {
        "is_exact": found.is_exact,
        "lost_offsets": found.lost_offsets,
        "topics": {
            topic.topic_name: {
                "file": topic.file_name,
                "partitions": [
                    {
                        "partition": one.partition.number,
                        "next_offset": one.next_offset,
                        "records": one.records,
                        "rows": one.rows,
                        "rejects": one.rejects,
                    }
                    for one in topic.partitions
                ],
                "not_checkable": {
                    "offsets": topic.gone_offsets,
                    "rows": topic.gone_rows,
                    "rejects": topic.gone_rejects,
                },
                **_json_faults(topic.findings),
            }
            for topic in found.topics
        },
        "rejects_file": _json_faults(found.unplaced),
    }


def _json_faults(findings: "Findings") -> dict[str, Any]:
    from fleetpulse.roles.auditing.finding import Fault  # noqa: PLC0415  starts alone

    return {
        **{fault.name.lower(): findings.counts[fault] for fault in Fault},
        "findings": [
            {
                "fault": one.fault.name.lower(),
                "partition": str(one.partition) if one.partition else None,
                "offset": one.offset,
                "text": one.text,
            }
            for one in findings.named
        ],
    }
