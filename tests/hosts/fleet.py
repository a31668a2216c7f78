"""Fleetpulse on the lab's hosts: each has its own settings file and output folder."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lab import ROOT, Host, Lab, Role, awaited

from fleetpulse.codec.table import record_file_name
from fleetpulse.domain.metric import FAMILIES, TOPICS, Family

PORT = 9092
DATASET = ROOT / "data" / "sample_data.csv"
MACHINES = ("broker", "producer", "consumer1", "consumer2")
# Whose folder the security folder has besides; it is no host of its own here.
MONITOR = "monitor"
RECORD_FILES = {
    family.name: [record_file_name(topic) for topic in family.topics] for family in FAMILIES
}
WINDOW_FILES = ("CPU_MEM.csv", "NET_DISK.csv")
# How long after the end of a fault a row may be missing; the design wants 10 s.
HEALING_S = 60.0


@dataclass(frozen=True)
class Consumer:
    """A consumer on its host, and the files that it writes."""

    host: Host
    family: Family
    role: Role
    output: Path

    def paths(self) -> dict[str, Path]:
        return {name: self.output / name for name in RECORD_FILES[self.family.name]}

    def has_begun(self) -> bool:
        return all(path.exists() and path.stat().st_size > 1000 for path in self.paths().values())

    def has(self, wanted: Mapping[str, bytes]) -> bool:
        """Tell whether the files are as long as they will be."""
        assert self.role.is_running(), self.role.said()
        return all(
            path.exists() and path.stat().st_size >= len(wanted[name])
            for name, path in self.paths().items()
        )


@dataclass(frozen=True)
class Fleet:
    """The machines of one fleet in a lab; `parts` are settings that all of them share."""

    lab: Lab
    parts: Mapping[str, Any]
    security: Path | None = None  # the folder of `security init`, None for an open fleet

    @classmethod
    def open_on(cls, lab: Lab) -> "Fleet":
        """Return a fleet without certificates and passwords."""
        hosts = {name: lab.hosts[name].address for name in MACHINES}
        fleet = cls(lab, {"hosts": hosts, "broker": {"port": PORT}})
        fleet.settle()
        return fleet

    @classmethod
    def secured_on(cls, lab: Lab) -> "Fleet":
        """Return a fleet of which each host got its folder as `security init` made it."""
        parts = cls.open_on(lab).parts
        folder = lab.broker.folder.with_name("security")
        lab.broker.run("security", "init", "--folder", str(folder))
        fleet = cls(lab, parts, folder)
        for name in MACHINES:
            fleet.copied(name, lab.hosts[name].config.parent)
        # Whoever watches does it on a host of its own or, as here, beside a consumer.
        fleet.copied(MONITOR, lab.consumer1.folder / MONITOR)
        return fleet

    def copied(self, name: str, to: Path) -> None:
        """Copy a machine's folder of certificate, password and settings."""
        assert self.security is not None
        shutil.copytree(self.security / name, to, dirs_exist_ok=True)

    def secret_files(self) -> list[Path]:
        """Return the files on the hosts that may hold a secret."""
        copies = [self.lab.hosts[name].config.parent for name in MACHINES]
        copies.append(self.lab.consumer1.folder / MONITOR)
        return [
            path
            for folder in copies
            for pattern in ("identity.pem", "password", "users/*.password")
            for path in folder.glob(pattern)
        ]

    def settle(self) -> None:
        """Write what all share into each host's settings, and leave the rest as it is."""
        for name in MACHINES:
            path = self.lab.hosts[name].config
            path.parent.mkdir(exist_ok=True)
            before = yaml.safe_load(path.read_text()) if path.exists() else {}
            path.write_text(yaml.safe_dump({**before, **self.parts}))

    def tagged(self, tag: str) -> "Fleet":
        """Return the fleet with topics and output folders of its own, and make the topics."""
        names = {topic.key: f"{tag}-{topic.key}" for topic in TOPICS}
        topics = {**names, "windows": f"{tag}-windows"}
        fleet = Fleet(
            self.lab, {**self.parts, "topics": topics, "output_dir": f"output-{tag}"}, self.security
        )
        fleet.settle()
        if self.security:
            # One that runs goes on, with the permissions for these topics.
            fleet.broker("start")
        self.lab.broker.run("topics", "create")
        return fleet

    def output(self, host: Host) -> Path:
        return host.folder / str(self.parts.get("output_dir", "output"))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the broker on its host."""
        self.broker("start")
        try:
            yield
        finally:
            self.broker("stop")

    def restart_broker(self, clock: str | None = None) -> None:
        self.broker("stop")
        self.broker("start", clock)

    def broker(self, verb: str, clock: str | None = None) -> None:
        data = self.lab.broker.folder / "broker"
        self.lab.broker.run("broker", verb, "--data", str(data), clock=clock)

    @contextmanager
    def consuming(self) -> Iterator[list[Consumer]]:
        """Run both consumers from when they read until the end, which is a good one."""
        consumers = []
        for name, family in zip(("consumer1", "consumer2"), FAMILIES, strict=True):
            host = self.lab.hosts[name]
            role = host.start(name, "--json")
            consumers.append(Consumer(host, family, role, self.output(host)))
        for consumer in consumers:
            for topic in consumer.family.topics:
                consumer.role.await_said(f"{topic.key}-0: reading from offset 0")
        yield consumers
        for consumer in consumers:
            assert consumer.role.stop() == 0, consumer.role.said()

    def produce(self, *arguments: str) -> Role:
        dataset = ("--dataset", str(DATASET), "--json")
        return self.lab.producer.start("producer", *dataset, *arguments)


def await_rows(
    consumers: Sequence[Consumer], wanted: Mapping[str, bytes], within_s: float = HEALING_S
) -> float:
    """Wait until every row is in the consumers' files, and return the seconds that it took."""

    def has_all() -> bool:
        return all(consumer.has(wanted) for consumer in consumers)

    sizes = {name: len(text) for name, text in wanted.items()}
    return awaited(has_all, f"all rows arrived ({json.dumps(sizes)})", within_s)


def check_rows(consumers: Sequence[Consumer], wanted: Mapping[str, bytes]) -> None:
    """See that the files are, byte by byte, what they are on one machine, with no rejects."""
    for consumer in consumers:
        for name, path in consumer.paths().items():
            assert path.read_bytes() == wanted[name], path
        for path in consumer.output.glob("rejects.*"):
            assert path.read_bytes() == b""
