"""The broker killed, stopped and emptied under consumer1, and logs that are not what they were."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions
from consumer_case import TOPICS, ConsumerCase
from injectors import process_state, wait_until

from chaos_table import Row
from fleetpulse.config import Settings
from fleetpulse.domain.metric import CPU, MEM
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.roles.broker import start_broker

STEPS = 20
CHANGED = 79
CATCH_UP_S = 60.0


@dataclass
class OwnBroker:
    """A broker that a test may break."""

    port: int
    data: Path

    def start(self) -> None:
        settings = Settings.model_validate({"broker": {"port": self.port}})
        start_broker(settings, self.data, dict(os.environ), lambda _: None)

    def pid(self) -> int:
        found = broker.status(self.data).pid
        assert found
        return found

    def kill(self) -> None:
        """Kill it and see that it is gone."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: broker.status(self.data).pid is None, "the broker lives")

    def stop(self) -> None:
        broker.stop(self.data)

    def wipe(self) -> None:
        """Lose all data: it starts as a new one."""
        self.kill()
        shutil.rmtree(self.data)

    def empty(self, *topic_names: str) -> None:
        """Lose the records of topics; the topics themselves stay the same."""
        self.kill()
        for topic_name in topic_names:
            (folder,) = self.data.glob(f"**/{topic_name}-0")
            for path in folder.iterdir():
                if path.name != "partition.metadata":
                    path.unlink()
        # What was known of the log is gone as well.
        for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
            for path in self.data.glob(f"**/{name}"):
                path.unlink()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    found = OwnBroker(free_port(), tmp_path_factory.mktemp("own") / "broker")
    try:
        yield found
    finally:
        found.stop()


def case_on(port: int, place: Path, row: Row, **parts: object) -> ConsumerCase:
    found = ConsumerCase.on(port, place, row, **parts)
    found.create()
    return found


@pytest.fixture
def case(broker_port: int, place: Path, row: Row) -> ConsumerCase:
    """A consumer that has read some messages and ended."""
    found = case_on(broker_port, place, row)
    found.send_steps(0, STEPS)
    found.finish()
    return found


def await_caught_up(case: ConsumerCase) -> float:
    """Wait until the files have what is acknowledged by now; return how long that took."""
    wanted, start_s = case.row.acknowledged or 0, time.monotonic()
    wait_until(lambda: case.lines() >= wanted, "it did not catch up", CATCH_UP_S, every_s=0.05)
    return time.monotonic() - start_s


@pytest.mark.timeout(1800)
def test_a_broker_that_dies_under_load_takes_nothing_that_it_acknowledged(
    own: OwnBroker, place: Path, row: Row, amount: Callable[[int, int], int]
) -> None:
    row.fault, row.injected = "broker SIGKILL under load", 0
    own.start()
    case = case_on(own.port, place, row)
    slowest_s = 0.0
    with case.running() as process:
        with case.load():
            wait_until(lambda: case.lines() > 0, "no row was written", CATCH_UP_S)
            for _ in range(amount(2, 30)):
                case.await_growth()
                time.sleep(case.rng.uniform(0, 0.5))
                own.kill()
                own.start()
                slowest_s = max(slowest_s, await_caught_up(case))
                assert process.poll() is None, case.said()
                row.injected += 1
        process.terminate()
        assert process.wait(CATCH_UP_S) == 0
    row.note = f"caught up within {slowest_s:.1f} s"
    case.finish()
    case.check()


@pytest.mark.timeout(300)
def test_a_broker_that_stands_still_is_waited_for(
    own: OwnBroker, place: Path, row: Row, amount: Callable[[int, int], int]
) -> None:
    row.fault, row.injected = "broker SIGSTOP", 0
    own.start()
    case = case_on(own.port, place, row)
    with case.running() as process:
        with case.load():
            # Before its first message it would give up after --connect-timeout.
            wait_until(lambda: case.lines() > 0, "no row was written", CATCH_UP_S)
            pid = own.pid()
            os.kill(pid, signal.SIGSTOP)
            try:
                wait_until(lambda: process_state(pid) == "T", "the broker runs")
                time.sleep(amount(6, 40))
                assert process_state(pid) == "T"
            finally:
                os.kill(pid, signal.SIGCONT)
            start_s = time.monotonic()
            case.await_growth("it did not go on")
            await_caught_up(case)
            seconds = time.monotonic() - start_s
            assert seconds < CATCH_UP_S
            row.injected += 1
        assert process.poll() is None, case.said()
        process.terminate()
        assert process.wait(CATCH_UP_S) == 0
    row.note = f"caught up within {seconds:.1f} s"
    case.finish()
    case.check()


# Logs that are not what they were


@pytest.mark.timeout(300)
def test_a_broker_that_lost_all_data_is_named_and_its_new_topics_are_read(
    own: OwnBroker, place: Path, row: Row
) -> None:
    row.fault, row.injected = "broker data wiped", 1
    own.start()
    case = case_on(own.port, place, row)
    case.send_steps(0, STEPS)
    case.finish()
    before = case.contents()
    own.wipe()
    own.start()
    assert case.run("--connect-timeout", "1s") == 69
    assert f"has no topic {case.fleet.name(CPU)} and no {case.fleet.name(MEM)};" in case.said()
    case.create()
    case.renew()
    # As many messages as there were: only the topic's id tells.
    case.send_steps(0, STEPS)
    assert case.run() == CHANGED
    assert "topic re-created: 0 offsets are lost" in case.said()
    assert case.contents() == before
    case.finish("--on-gap", "continue")
    case.check(before)


def test_a_topic_that_is_deleted_and_made_again_while_it_runs_is_named(
    case: ConsumerCase,
) -> None:
    row = case.row
    row.fault, row.injected = "topic re-created while it runs", 1
    with case.running() as process:
        case.send_steps(STEPS, 1)
        await_caught_up(case)
        before = case.contents()
        for topic in TOPICS:
            case.delete(topic)
        case.create()
        case.renew()
        case.send_steps(0, STEPS)
        assert process.wait(CATCH_UP_S) == CHANGED, case.said()
    assert "topic re-created: 0 offsets are lost" in case.said()
    assert case.contents() == before
    case.finish("--on-gap", "continue")
    case.check(before)


def test_retention_that_passed_is_counted_to_the_offset(case: ConsumerCase) -> None:
    row = case.row
    row.fault, row.injected = "retention passed", 1
    starts = case.next_offsets()
    read = starts[case.fleet.name(CPU)]
    case.send_steps(STEPS, STEPS)
    lost = case.rng.randrange(1, 50)
    case.delete_records(CPU, read + lost)
    assert case.run() == CHANGED
    assert f"retention passed the consumer: {lost} offsets are lost" in case.said()
    assert f"committed up to offset {read}, the log goes on at {read + lost}" in case.said()
    before = case.contents()
    case.finish("--on-gap", "continue")
    row.note = f"{lost} offsets named and counted"
    case.check(before, starts)


def test_retention_that_passes_a_consumer_while_it_stands_still_is_counted(
    case: ConsumerCase,
) -> None:
    row = case.row
    row.fault, row.injected = "retention passed while it runs", 1
    lost = case.rng.randrange(1, 50)
    with case.running() as process:
        case.send_steps(STEPS, 1)
        await_caught_up(case)
        wait_until(
            lambda: sum(case.next_offsets().values()) == row.acknowledged, "it did not commit"
        )
        process.send_signal(signal.SIGSTOP)
        before = case.contents()
        starts = case.next_offsets()
        read = starts[case.fleet.name(CPU)]
        # The broker answers within 100 ms what the client has asked for by now.
        time.sleep(1)
        case.send_steps(2 * STEPS, STEPS)
        case.delete_records(CPU, read + lost)
        process.send_signal(signal.SIGCONT)
        assert process.wait(CATCH_UP_S) == CHANGED, case.said()
    assert f"retention passed the consumer: {lost} offsets are lost" in case.said()
    case.finish("--on-gap", "continue")
    row.note = f"{lost} offsets named and counted"
    case.check(before, starts)


@pytest.mark.timeout(300)
def test_logs_that_lost_their_end_are_named_even_where_they_grew_again(
    own: OwnBroker, place: Path, row: Row
) -> None:
    row.fault, row.injected = "logs lost their end, one regrew", 2
    own.start()
    case = case_on(own.port, place, row)
    case.send_steps(0, STEPS)
    case.finish()
    cpu, mem = map(case.fleet.name, (CPU, MEM))
    read, before = case.next_offsets(), case.contents()
    ids = case.topic_ids()
    own.empty(cpu, mem)
    own.start()
    assert case.topic_ids() == ids
    assert case.expected({}).rows() == 0
    case.renew()
    case.send(case.fleet.steps(STEPS, 2 * STEPS, [CPU]))
    assert case.run() == CHANGED, case.said()
    assert case.contents() == before
    case.finish("--on-gap", "continue")
    assert f"{cpu}-0: log holds other records: 0 offsets are lost" in case.said()
    assert f"{mem}-0: log lost its end: {read[mem]} offsets are lost" in case.said()
    case.check(before)


# Topics and transactions


@pytest.mark.timeout(120)
def test_topics_that_come_late_and_grow_are_read_from_their_beginning(
    broker_port: int, place: Path, row: Row
) -> None:
    row.fault, row.injected = "topic missing, partitions 1 -> 3", 2
    case = ConsumerCase.on(broker_port, place, row)
    names = [case.fleet.name(topic) for topic in TOPICS]
    with case.running() as process:
        wait_until(lambda: f"has no topic {names[0]} and no" in case.said(), "it did not wait", 30)
        case.create()
        case.send_steps(0, STEPS)
        await_caught_up(case)
        grown = case.fleet.admin.create_partitions([NewPartitions(name, 3) for name in names])
        for future in grown.values():
            future.result(CATCH_UP_S)
        case.reconnect()
        for step in range(STEPS, 2 * STEPS):
            case.send(
                replace(one, number=case.rng.randrange(3))
                for one in case.fleet.steps(step, 1, TOPICS)
            )
        await_caught_up(case)
        assert process.poll() is None
    case.finish()
    case.check()


@pytest.mark.timeout(120)
def test_aborted_messages_stay_invisible_and_an_open_transaction_is_named(
    case: ConsumerCase,
) -> None:
    row = case.row
    row.fault, row.injected = "aborted and hanging transactions", 0
    producer = Producer(
        {
            "bootstrap.servers": case.fleet.bootstrap,
            "transactional.id": case.fleet.name(CPU),
            "log_level": 0,
        }
    )
    producer.init_transactions(CATCH_UP_S)

    def produce(step: int) -> int:
        messages = list(case.fleet.steps(step, 1, TOPICS))
        producer.begin_transaction()
        for one in messages:
            producer.produce(case.fleet.name(one.topic), one.value, b"key", 0)
        assert producer.flush(CATCH_UP_S) == 0
        return len(messages)

    for step in range(STEPS, STEPS + 10):
        count = produce(step)
        if case.rng.randrange(2):
            producer.abort_transaction(CATCH_UP_S)
            row.injected += 1
        else:
            producer.commit_transaction(CATCH_UP_S)
            case.count(count)
    case.finish()
    case.check()

    # What comes behind an open transaction cannot be read before its end.
    hanging = produce(STEPS + 10)
    row.injected += 1
    case.send_steps(STEPS + 11, 5)
    before = case.contents()
    with case.running() as process:
        name = case.fleet.name(CPU)
        wait_until(lambda: f"{name}-0: " in case.said(), "nothing was said", CATCH_UP_S)
        assert "offsets from" in case.said()
        assert "a producer's transaction is open there and does not end" in case.said()
        assert case.contents() == before
        producer.commit_transaction(CATCH_UP_S)
        case.count(hanging)
        await_caught_up(case)
        assert f"{name}-0: the transaction ended: going on" in case.said()
        assert process.poll() is None
    case.finish()
    case.check()
