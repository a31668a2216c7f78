"""What a broker's folder holds and which addresses are refused; no broker is started here."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.domain.errors import AlreadyRunning, DamagedState, DiskError, UsageError
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.address import check_address, free_port
from fleetpulse.edges.kafka.broker import BrokerSpec
from fleetpulse.edges.kafka.broker_folder import BrokerFolder, Listeners


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def note(folder: Path, content: str) -> None:
    BrokerFolder.at(folder).process_path.write_text(content)


def test_a_free_port_of_this_machine_is_fine() -> None:
    check_address("127.0.0.1", free_port())


def test_a_taken_port_names_port_holder_and_key(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(UsageError) as caught:
        check_address("127.0.0.1", port)
    for part in (f"port {port}", f"process {os.getpid()}", "broker.port"):
        assert part in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104  must be refused
def test_every_interface_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="leads nowhere"):
        check_address(host, free_port())


def test_an_address_of_another_machine_is_refused() -> None:
    # 192.0.2.0/24 is for documentation: no machine has it (RFC 5737).
    with pytest.raises(UsageError, match="not an address of this machine"):
        check_address("192.0.2.7", free_port())


def test_a_name_without_address_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no address is known for 'broker\.invalid'"):
        check_address("broker.invalid", free_port())


@pytest.mark.parametrize(
    ("host", "address"), [("10.1.2.3", "10.1.2.3:9092"), ("fd00::1", "[fd00::1]:9092")]
)
def test_an_address_is_written_as_kafka_reads_it(host: str, address: str, tmp_path: Path) -> None:
    assert BrokerSpec(host, 9092, tmp_path, tmp_path, ()).address == address


def test_the_settings_open_the_client_port_alone_and_make_no_topics(tmp_path: Path) -> None:
    folder = BrokerFolder.at(tmp_path)
    folder.write_settings(Listeners("10.1.2.3:9092", 4711))
    lines = folder.settings_path.read_text().splitlines()
    assert "listeners=CLIENT://10.1.2.3:9092,CONTROLLER://127.0.0.1:4711" in lines
    assert "advertised.listeners=CLIENT://10.1.2.3:9092" in lines
    assert "auto.create.topics.enable=false" in lines


def test_a_path_beyond_ascii_is_escaped_for_java(tmp_path: Path) -> None:
    folder = BrokerFolder.at(tmp_path / "dätä \U0001f600")
    with folder.launching():
        folder.write_settings(Listeners("127.0.0.1:9092", 4711))
    assert r"d\u00e4t\u00e4 \ud83d\ude00/messages" in folder.settings_path.read_text()


def test_a_comma_in_the_path_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="comma"):
        BrokerFolder.at(tmp_path / "a,b").write_settings(Listeners("127.0.0.1:9092", 4711))


def test_files_of_a_broker_are_not_for_others(tmp_path: Path) -> None:
    folder = BrokerFolder.at(tmp_path / "new" / "data")
    with folder.launching(), folder.output():
        pass
    assert folder.path.stat().st_mode & 0o007 == 0
    assert folder.log_path.stat().st_mode & 0o007 == 0


def test_a_second_launch_of_a_folder_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    folder = BrokerFolder.at(tmp_path)
    with folder.launching(), pytest.raises(AlreadyRunning), folder.launching():
        pass
    with folder.launching():
        pass


def test_a_file_in_the_way_of_the_folder_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DiskError, match=r"file/data.*--data"),
        BrokerFolder.at(tmp_path / "file" / "data").launching(),
    ):
        pass


def test_a_folder_without_a_broker_is_stopped(tmp_path: Path) -> None:
    found = broker.status(tmp_path / "none")
    assert (found.pid, found.address, found.is_answering) == (None, None, False)
    assert not broker.stop(tmp_path / "none")


def test_a_recycled_process_id_is_neither_shown_nor_stopped(tmp_path: Path) -> None:
    note(tmp_path, json.dumps({"pid": os.getpid(), "address": "127.0.0.1:1"}))
    assert broker.status(tmp_path).pid is None
    assert not broker.stop(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": "x", "address": "a"}', "\x00\x01"])
def test_an_unreadable_process_file_is_named(tmp_path: Path, content: str) -> None:
    note(tmp_path, content)
    with pytest.raises(DamagedState, match=r"broker\.pid"):
        broker.status(tmp_path)


def test_a_failure_shows_the_end_of_the_log_and_its_path(tmp_path: Path) -> None:
    folder = BrokerFolder.at(tmp_path)
    folder.log_path.write_text("\n".join(f"line {number}" for number in range(100)))
    text = str(folder.failure("it broke"))
    assert "it broke" in text
    assert str(folder.log_path) in text
    assert "line 99" in text
    assert "line 9\n" not in text


def test_a_failure_for_want_of_space_is_a_disk_error(tmp_path: Path) -> None:
    folder = BrokerFolder.at(tmp_path)
    folder.log_path.write_text("java.io.IOException: No space left on device\n")
    assert isinstance(folder.failure("it broke"), DiskError)
