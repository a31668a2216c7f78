"""What a hostile machine of the same network tries: to find ports, to read, and to write."""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from lab import Host

PORTS = range(1, 65_536)
LASTS_S = 6.0
FORGED = b'{"ts":"2025-10-05T20:53:00Z","server_id":"forged","cpu_pct":1}'

Client = Mapping[str, Any]


@dataclass
class Loot:
    """What an attack brought: messages read and written, and what the client was told."""

    read: int = 0
    written: int = 0
    errors: list[str] = field(default_factory=list)


def open_ports(seen_from: Host, address: str) -> list[int]:
    """Return every port of an address that takes a connection."""
    found = []
    with seen_from.inside():
        for port in PORTS:
            with socket.socket() as probe:
                probe.settimeout(0.5)
                # A closed port refuses at once.
                if probe.connect_ex((address, port)) == 0:
                    found.append(port)
    return found


def clients(address: str, own: Path, forged: Path) -> dict[str, Client]:
    """Return client settings by what they have; `all of it` is what a machine has.

    `own` and `forged` are folders of a machine: the fleet's, and one of another authority.
    """
    password, wrong = ((one / "password").read_text().strip() for one in (own, forged))

    def at(protocol: str, *parts: Client) -> Client:
        found = {"bootstrap.servers": address, "security.protocol": protocol}
        if "SSL" in protocol:
            found["ssl.ca.location"] = str(own / "ca.pem")
        for part in parts:
            found |= part
        return found

    def certificate(folder: Path) -> Client:
        path = str(folder / "identity.pem")
        return {"ssl.certificate.location": path, "ssl.key.location": path}

    def login(word: str, user: str = "admin") -> Client:
        return {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": user, "sasl.password": word}

    right, shown = login(password), certificate(own)
    return {
        "all of it": at("SASL_SSL", shown, right),
        "nothing": at("PLAINTEXT"),
        "the password, unencrypted": at("SASL_PLAINTEXT", right),
        "the authority alone": at("SSL"),
        "the password, no certificate": at("SASL_SSL", right),
        "the password, a certificate of another authority": at(
            "SASL_SSL", certificate(forged), right
        ),
        "a certificate, no login": at("SSL", shown),
        "a certificate, a wrong password": at("SASL_SSL", shown, login(wrong)),
        "a certificate, an unknown user": at("SASL_SSL", shown, login(password, "root")),
    }


def attacked(host: Host, attackers: Mapping[str, Client], topic: str) -> dict[str, Loot]:
    """Try to read and to write a topic with all of them at the same time, and return the loot."""
    loot = {name: Loot() for name in attackers}
    readers, writers = {}, {}
    with host.inside():
        for name, client in attackers.items():
            heard = {"error_cb": _noting(loot[name]), "log_level": 0}
            readers[name] = Consumer({**client, **heard, "group.id": "fleetpulse-hostile"})
            writers[name] = Producer({**client, **heard})
    for name in attackers:
        readers[name].assign([TopicPartition(topic, 0, 0)])
        writers[name].produce(topic, FORGED, on_delivery=_counting(loot[name]))
    end_s = time.monotonic() + LASTS_S
    while time.monotonic() < end_s:
        for name, reader in readers.items():
            loot[name].read += sum(one.error() is None for one in reader.consume(1000, 0.01))
            writers[name].poll(0)
    for name, reader in readers.items():
        reader.close()
        writers[name].purge()
        writers[name].flush(1)
    return loot


def _noting(loot: Loot) -> Any:  # noqa: ANN401  the library's callback
    return lambda error: loot.errors.append(error.str())


def _counting(loot: Loot) -> Any:  # noqa: ANN401
    def delivered(error: object, _message: object) -> None:
        loot.written += error is None

    return delivered
