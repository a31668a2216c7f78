"""Targets under fuzzing, each in a process of its own.

Each target has 15 seconds, with FLEETPULSE_CHAOS=full seven and a half minutes. FLEETPULSE_FUZZ_S
sets another time for each, FLEETPULSE_CHAOS_SEED the seed of an earlier run.
"""

import importlib.util
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS, WORDS

from chaos_table import IS_FULL

HERE = Path(__file__).parent
SEEDS = HERE / "seeds"
SECONDS = int(os.environ.get("FLEETPULSE_FUZZ_S", "450" if IS_FULL else "15"))
MOST_MEMORY_MB = 512
# Of the wall clock, for what never ends at all; the targets themselves allow a second.
HANG_S = 60
START_S = 60
# Beside the other tests of a full run one processor is enough.
AT_ONCE = 1 if IS_FULL else 2
# Until the last target has ended, however slow the machine is.
END_S = 2 * (SECONDS + HANG_S + START_S) * len(TARGETS) / AT_ONCE


@dataclass(frozen=True)
class Fuzzed:
    """What became of the fuzzing of a target."""

    code: int
    tried: int
    output: str


class Fuzzing:
    """All targets, beginning with their seeds; inputs that break a promise are kept."""

    def __init__(self) -> None:
        given = os.environ.get("FLEETPULSE_CHAOS_SEED")
        self.seed = int(given) if given else random.SystemRandom().randrange(1, 2**31)
        self._place = Path(mkdtemp(prefix="fleetpulse-fuzz-"))
        self._processes: list[subprocess.Popen[str]] = []
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._runs = {name: self._pool.submit(self._fuzz, name) for name in TARGETS}

    def result(self, name: str) -> Fuzzed:
        """Wait for the end of a target."""
        return self._runs[name].result()

    def end(self) -> None:
        """End what still runs."""
        for run in self._runs.values():
            run.cancel()
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self._pool.shutdown()
        if not any(self.found(name) for name in TARGETS):
            shutil.rmtree(self._place)

    def found(self, name: str) -> list[Path]:
        """Return the inputs that broke a promise of a target."""
        return sorted(self._place.glob(f"{name}-*"))

    def _fuzz(self, name: str) -> Fuzzed:
        found = self._place / name
        found.mkdir()
        words = self._place / f"{name}.dict"
        words.write_text("".join(map(as_word, WORDS[name])), encoding="ascii")
        options = [
            f"-dict={words}",
            f"-max_total_time={SECONDS}",
            f"-seed={self.seed}",
            f"-rss_limit_mb={MOST_MEMORY_MB}",
            f"-timeout={HANG_S}",
            "-max_len=8192",
            f"-artifact_prefix={self._place}/{name}-",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        # The most memory that a process had is handed on to what it runs in its place, so the
        # harness, started straight from here, would be charged with that of all tests so far: a
        # shell forks it.
        process = subprocess.Popen(
            [
                *("sh", "-c", 'nice "$@"; exit $?', "sh"),
                *(sys.executable, HERE / "harness.py", name, *options, found, SEEDS / name),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._processes.append(process)
        output, _ = process.communicate(timeout=SECONDS + HANG_S + START_S)
        tried = re.search(r"number_of_executed_units: +(\d+)", output)
        return Fuzzed(process.returncode, int(tried[1]) if tried else 0, output)


def lack() -> str | None:
    """Return what this machine lacks."""
    if importlib.util.find_spec("atheris") is not None:
        return None
    return (
        f"fuzzing wants the package atheris, which has no wheel for {platform.system()} on "
        f"{platform.machine()}"
    )


def as_word(word: str) -> str:
    """Return a line of a dictionary as libFuzzer reads it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n'
