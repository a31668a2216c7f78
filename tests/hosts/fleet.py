"""Fleetpulse on the lab's hosts: each has its own settings file and output folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import ROOT, Host, Lab, Role, awaited

from fleetpulse.codec.table import record_file_name
from fleetpulse.domain.metric import FAMILIES, TOPICS, Family

PORT = 9092
DATASET = ROOT / "data" / "sample_data.csv"
MACHINES = ("broker", "producer", "consumer1", "consumer2")
RECORD_FILES = {
    family.name: [record_file_name(topic) for topic in family.topics] for family in FAMILIES
}
WINDOW_FILES = ("CPU_MEM.csv", "NET_DISK.csv")
# How long a fault may last beyond its end; what the design wants is 10 s.
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
    """The machines of one fleet in a lab, with settings that they share."""

    lab: Lab
    settings: Mapping[str, Any]

    @classmethod
    def on(cls, lab: Lab, **parts: object) -> "Fleet":
        hosts = {name: lab.hosts[name].address for name in MACHINES}
        return cls(lab, {"hosts": hosts, "broker": {"port": PORT}, **parts})

    def but(self, **parts: object) -> "Fleet":
        return Fleet(self.lab, {**self.settings, **parts})

    def settle(self) -> None:
        for name in MACHINES:
            self.lab.hosts[name].settle(self.settings)

    def tagged(self, tag: str) -> "Fleet":
        """Return the fleet with topics and output folders of its own, and make the topics."""
        names = {topic.key: f"{tag}-{topic.key}" for topic in TOPICS}
        fleet = self.but(
            topics={**names, "windows": f"{tag}-windows"},
            output_dir=f"output-{tag}",
        )
        fleet.settle()
        self.lab.broker.run("topics", "create")
        return fleet

    def output(self, host: Host) -> Path:
        return host.folder / str(self.settings.get("output_dir", "output"))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the broker on its host."""
        self.settle()
        self.broker("start")
        try:
            yield
        finally:
            self.broker("stop")

    def restart_broker(self) -> None:
        self.broker("stop")
        self.broker("start")

    def broker(self, verb: str) -> None:
        data = self.lab.broker.folder / "broker"
        self.lab.broker.run("broker", verb, "--data", str(data))

    @contextmanager
    def consuming(self, *arguments: str) -> Iterator[list[Consumer]]:
        """Run both consumers from when they read until the end, which is a good one."""
        consumers = []
        for name, family in zip(("consumer1", "consumer2"), FAMILIES, strict=True):
            host = self.lab.hosts[name]
            role = host.start(name, "--json", *arguments)
            consumers.append(Consumer(host, family, role, self.output(host)))
        for consumer in consumers:
            for topic in consumer.family.topics:
                consumer.role.await_said(f"{topic.key}-0: reading from offset 0")
        yield consumers
        for consumer in consumers:
            assert consumer.role.stop() == 0, consumer.role.said()

    def produce(self, *arguments: str) -> Role:
        dataset = ("--dataset", str(DATASET))
        return self.lab.producer.start("producer", *dataset, "--json", *arguments)


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
