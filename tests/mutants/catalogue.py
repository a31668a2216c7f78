"""The mutants: one small wrong change each, and the tests that have to notice it.

The first part is what goes wrong with exactly-once programs; the rest are our own weak places.
"""

from dataclasses import dataclass

STORE = "src/fleetpulse/edges/sink/store.py"
DATA_FILE = "src/fleetpulse/edges/sink/data_file.py"
DISK = "src/fleetpulse/edges/sink/disk.py"
STATE = "src/fleetpulse/edges/sink/state.py"
CONSUMER = "src/fleetpulse/edges/kafka/consumer.py"
FETCHED = "src/fleetpulse/edges/kafka/fetched.py"
REPLAY_LOG = "src/fleetpulse/edges/kafka/replay_log.py"
LOCATE = "src/fleetpulse/roles/locate.py"
TRANSFER = "src/fleetpulse/roles/transfer.py"
REPLAY = "src/fleetpulse/roles/replay.py"
POSITION = "src/fleetpulse/domain/position.py"
MESSAGE = "src/fleetpulse/codec/message.py"
FIELD = "src/fleetpulse/codec/field.py"
INTAKE = "src/fleetpulse/codec/intake.py"
PLAIN = "src/fleetpulse/codec/plain.py"

MACHINE = "tests/property/test_sink_machine.py"
DEATHS = f"{MACHINE}::test_after_a_death_at_any_call_of_a_start_no_power_cut_takes_a_commit"
CRASHES = "tests/property/test_sink.py"
SINK = "tests/unit/test_sink.py"
POWER = "tests/chaos/test_power_loss.py"
CONSUME = "tests/e2e/test_consume.py"
LOG_CONSUMER = "tests/e2e/test_log_consumer.py"
PRODUCE = "tests/e2e/test_produce.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of a file, `text` standing in it exactly once, and where it should be noticed."""

    name: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "state before data",
        STORE,
        """\
        for file in written:
            lines = batch.lines[file.path.name]
""",
        """\
        self._state.commit([], batch.positions, batch.counts, batch.notes)
        for file in written:
            lines = batch.lines[file.path.name]
""",
        (CRASHES, MACHINE),
    ),
    Mutant(
        "no data sync",
        DATA_FILE,
        """\
            sync_data(self._descriptor)
            ours = """,
        """\
            ours = """,
        (MACHINE,),
    ),
    Mutant(
        "no data sync, on a disk that loses power",
        DISK,
        "        os.fdatasync(descriptor)\n",
        "        os.fstat(descriptor)\n",
        (POWER,),
    ),
    Mutant(
        "no folder sync",
        DISK,
        "            os.fsync(descriptor)\n",
        "            pass\n",
        (DEATHS,),
    ),
    Mutant(
        "truncate skipped",
        DATA_FILE,
        "            os.ftruncate(self._descriptor, self.state.committed_bytes)\n",
        "",
        (SINK,),
    ),
    Mutant(
        "seek skipped, the group's offset trusted",
        CONSUMER,
        "TopicPartition(partition.topic_name, partition.number, offset)\n"
        "                for partition, offset in self._next.items()",
        "TopicPartition(partition.topic_name, partition.number)\n"
        "                for partition, offset in self._next.items()",
        (LOG_CONSUMER,),
    ),
    Mutant(
        "next = offset instead of +1",
        FETCHED,
        "next_offset=message.offset() + 1,",
        "next_offset=message.offset(),",
        ("tests/unit/test_consumer.py",),
    ),
    Mutant(
        "rejects outside the commit",
        STORE,
        "            [file.pending for file in written], batch",
        '            [one.pending for one in written if one.path.suffix == ".csv"], batch',
        (CRASHES, MACHINE),
    ),
    Mutant(
        "reset to latest",
        CONSUMER,
        '"auto.offset.reset": "error"',
        '"auto.offset.reset": "latest"',
        (LOG_CONSUMER,),
    ),
    Mutant(
        "a first start at the latest message",
        LOCATE,
        "start_offset=starts.get(partition, fact.low),",
        "start_offset=starts.get(partition, fact.high),",
        (f"{CONSUME}::test_every_message_becomes_one_row_and_a_second_run_adds_only_what_is_new",),
    ),
    Mutant(
        "lock skipped",
        DISK,
        "            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        (SINK,),
    ),
    Mutant("short write not looped", DISK, "    while view:\n", "    if view:\n", (SINK,)),
    # Our own.
    Mutant(
        "a failed sync is taken for one",
        DATA_FILE,
        '            raise explained(err, self.path, "sync") from err\n        try:',
        "            ours = os.fstat(self._descriptor)\n        try:",
        (SINK,),
    ),
    Mutant(
        "a sink that failed writes again",
        STORE,
        "        self._failed = True\n",
        "        self._failed = False\n",
        (SINK,),
    ),
    Mutant(
        "the state is not synced, on a disk that loses power",
        STATE,
        '"synchronous=FULL"',
        '"synchronous=OFF"',
        (POWER,),
    ),
    Mutant(
        "the folder that a dead start made is not synced",
        DISK,
        "            sync_folder(there.parent)\n",
        "            pass\n",
        (DEATHS,),
    ),
    Mutant(
        "the end of a file is not compared",
        DATA_FILE,
        "        if zlib.crc32(tail) != state.tail_crc:\n",
        "        if not tail and state.tail_crc:\n",
        (SINK,),
    ),
    Mutant(
        "an edited file is not read whole",
        DATA_FILE,
        "and found.st_mtime_ns != state.modified_ns",
        "and found.st_mtime_ns < 0",
        (SINK,),
    ),
    Mutant(
        "a file that grew meanwhile is written over",
        DATA_FILE,
        "            if size_bytes != state.committed_bytes:\n",
        "            if size_bytes < state.committed_bytes:\n",
        (SINK,),
    ),
    Mutant("links are followed", DISK, "flags | os.O_NOFOLLOW |", "flags |", (SINK,)),
    Mutant(
        "a changed offset in the state is believed",
        STATE,
        "        if _row_checksum(row) != checksum:\n",
        "        if False:\n",
        (SINK,),
    ),
    Mutant(
        "an older state is believed",
        STORE,
        "    if 0 < starts < noted:\n",
        "    if starts < 0 < noted:\n",
        (SINK,),
    ),
    Mutant(
        "a re-created topic goes unnoticed",
        POSITION,
        "if None not in ids and ids[0] != ids[1]:",
        "if None in ids and ids[0] == ids[1]:",
        ("tests/unit/test_position.py",),
    ),
    Mutant(
        "a log that regrew goes unnoticed",
        POSITION,
        "facts.fingerprint != last.fingerprint:",
        "facts.fingerprint is None:",
        ("tests/unit/test_position.py",),
    ),
    Mutant(
        "a gap is one offset short",
        POSITION,
        "facts.low - position.next_offset, facts.low)",
        "facts.low - position.next_offset - 1, facts.low)",
        ("tests/unit/test_position.py",),
    ),
    Mutant(
        "a new partition of a known topic begins at its end",
        POSITION,
        "facts.topic_id, 0 if is_known_topic else start_offset)",
        "facts.topic_id, start_offset)",
        ("tests/unit/test_position.py",),
    ),
    Mutant(
        "lost offsets are not counted",
        LOCATE,
        "                lost_offsets += gap.lost_offsets\n",
        "",
        (f"{CONSUME}::test_retention_that_passed_is_counted_to_the_offset",),
    ),
    Mutant(
        "aborted messages are read",
        CONSUMER,
        '"isolation.level": "read_committed"',
        '"isolation.level": "read_uncommitted"',
        (f"{CONSUME}::test_aborted_records_are_invisible_and_markers_are_read",),
    ),
    Mutant(
        "what was read last is not committed at a stop",
        TRANSFER,
        "        self._commit()\n        return is_caught_up\n",
        "        return is_caught_up\n",
        (f"{CONSUME}::test_every_message_becomes_one_row_and_a_second_run_adds_only_what_is_new",),
    ),
    Mutant(
        "what follows the message that tripped the limit is skipped",
        TRANSFER,
        "fetched.position_after(taken.count, before)",
        "fetched.position_after(len(fetched.messages), before)",
        (f"{CONSUME}::test_too_many_rejects_pause_a_running_consumer_until_it_is_stopped",),
    ),
    Mutant(
        "a reject is counted and not written",
        INTAKE,
        "        self._reject_lines.append("
        "message_reject_line(name, number, offset, reject, payload))\n",
        "        message_reject_line(name, number, offset, reject, payload)\n",
        ("tests/unit/test_intake.py",),
    ),
    Mutant(
        "a message of one byte more than the limit is read",
        MESSAGE,
        "    if len(payload) > MAX_INPUT_BYTES:\n",
        "    if len(payload) > MAX_INPUT_BYTES + 1:\n",
        ("tests/unit/test_message.py",),
    ),
    Mutant(
        "true is the number 1",
        FIELD,
        "    if isinstance(found, bool) or not isinstance(found, int | float):\n",
        "    if not isinstance(found, int | float):\n",
        ("tests/unit/test_message.py",),
    ),
    Mutant(
        "deep JSON ends the role",
        MESSAGE,
        "    except (RecursionError, ValueError) as err:\n",
        "    except ValueError as err:\n",
        ("tests/unit/test_message.py",),
    ),
    Mutant(
        "the shortcut believes any instant",
        PLAIN,
        "        if match is None or match[1] not in self.instants:\n",
        "        if match is None:\n",
        ("tests/property/test_intake.py",),
    ),
    Mutant(
        "a restarted producer begins anew",
        REPLAY_LOG,
        "        self.note = self._read_note()\n",
        "        self.note = None\n",
        (f"{PRODUCE}::test_the_limits_of_a_run_count_from_the_beginning_of_the_dataset",),
    ),
    Mutant(
        "the producer's position is one row short",
        REPLAY,
        "reached = self.position.next_sample + self.pending_samples",
        "reached = self.position.next_sample + self.pending_samples - 1",
        (f"{PRODUCE}::test_the_limits_of_a_run_count_from_the_beginning_of_the_dataset",),
    ),
    Mutant(
        "the producer's position is that of the commit before",
        REPLAY_LOG,
        "        self._queue(self._notes.topic_name, self._key, note, 0)\n",
        "        self._queue(self._notes.topic_name, self._key, self.note or note, 0)\n",
        (f"{PRODUCE}::test_the_limits_of_a_run_count_from_the_beginning_of_the_dataset",),
    ),
)
