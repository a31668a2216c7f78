"""Each fault happens where it is asked for, and nowhere else."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from injectors import (
    attach,
    ext4_disk,
    process_state,
    small_disk,
    trace_options,
    wait_until,
)

WRITER = """
import os, sys
print("ready", flush=True)
for path in sys.argv[1:]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    for number in range(3):
        try:
            os.write(descriptor, b"x")
            os.fdatasync(descriptor)
        except OSError as err:
            print(os.path.basename(path), number, err.errno, flush=True)
"""


@pytest.mark.usefixtures("tracing")
def test_a_process_dies_at_the_very_call_that_was_named(tmp_path: Path) -> None:
    target = tmp_path / "target"
    command = [
        sys.executable,
        "-c",
        "import os,signal;os.kill(os.getpid(),signal.SIGSTOP);" + WRITER,
    ]
    with subprocess.Popen([*command, str(target)], stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: process_state(process.pid) == "T", "it did not stop")
        traced = attach(
            process.pid, tmp_path / "log", "fdatasync", "fdatasync:signal=SIGKILL:when=2"
        )
        process.send_signal(signal.SIGCONT)
        assert process.wait(10) == -signal.SIGKILL
    traced.process.wait(10)
    assert traced.is_killed()
    assert traced.calls() == {"fdatasync": 2}
    assert target.read_bytes() == b"xx"


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize(
    ("call", "code"), [("fdatasync", "EIO"), ("write", "ENOSPC"), ("fdatasync", "EDQUOT")]
)
def test_a_call_fails_for_one_file_and_no_other(tmp_path: Path, call: str, code: str) -> None:
    hit, other = tmp_path / "hit", tmp_path / "other"
    options = trace_options(tmp_path / "log", call, f"{call}:error={code}:when=2", (hit,))
    done = subprocess.run(
        [*options, sys.executable, "-c", WRITER, str(hit), str(other)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == ["ready", f"hit 1 {getattr(errno, code)}"]
    assert (tmp_path / "log").read_text().count("(INJECTED)") == 1


@pytest.mark.usefixtures("mounting")
def test_a_power_cut_takes_what_was_not_synced_and_nothing_else(
    tmp_path: Path,
) -> None:
    with ext4_disk(tmp_path) as disk:
        kept, lost = disk.place / "kept", disk.place / "lost"
        with kept.open("wb", buffering=0) as file:
            file.write(b"kept")
            os.fsync(file.fileno())
        lost.write_bytes(b"lost")
        disk.cut_power()
        with pytest.raises(OSError, match="Input/output error"):
            (disk.place / "after").write_bytes(b"after")
        disk.turn_on()
        assert [path.name for path in disk.place.iterdir() if path.is_file()] == ["kept"]
        assert kept.read_bytes() == b"kept"


@pytest.mark.usefixtures("mounting")
def test_a_disk_that_turns_read_only_takes_no_more_writes_until_it_is_restored(
    tmp_path: Path,
) -> None:
    with ext4_disk(tmp_path) as disk:
        with (disk.place / "file").open("wb", buffering=0) as file:
            file.write(b"before")
            disk.make_read_only()
            with pytest.raises(OSError, match="Read-only file system"):
                file.write(b"after")
        disk.restore()
        (disk.place / "again").write_bytes(b"again")


@pytest.mark.usefixtures("mounting")
def test_a_full_disk_takes_no_more_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, 256) as disk:
        disk.fill(leave_bytes=8192)
        with pytest.raises(OSError, match="No space left"):
            (disk.place / "file").write_bytes(b"x" * 20_000)
        disk.make_room()
        (disk.place / "file").write_bytes(b"x" * 20_000)


PROBE = """
import time
from datetime import datetime
from threading import Event
for _ in range(2):
    print(time.time(), time.time_ns() / 1e9, datetime.now().timestamp(), time.monotonic())
    Event().wait(0.05)
"""


def clocks(clock: str, folder: Path) -> list[list[float]]:
    """Return what a program reads of the time, twice; the monotonic clock comes last."""
    (folder / "probe.py").write_text(PROBE)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("wrong_clock.py")), clock, "probe"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return [[float(one) for one in line.split()] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("shift_s", [3 * 86_400, -86_400])
def test_a_wrong_clock_is_off_and_the_monotonic_one_is_not(tmp_path: Path, shift_s: int) -> None:
    for *found_s, monotonic_s in clocks(str(shift_s), tmp_path):
        assert all(abs(one - time.time() - shift_s) < 60 for one in found_s)
        assert abs(monotonic_s - time.monotonic()) < 60


def test_a_frozen_clock_stands_and_the_monotonic_one_goes_on(tmp_path: Path) -> None:
    (*first, before), (*second, after) = clocks("frozen", tmp_path)
    assert first == second
    assert after > before
