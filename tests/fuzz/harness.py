"""Fuzzes a target with atheris: python tests/fuzz/harness.py TARGET [libFuzzer options, files].

With a file it runs that one input, which is how a failure is repeated.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

# Not YAML's own parser: watched it takes seventeen times as long, and a second is the limit.
with atheris.instrument_imports(include=["fleetpulse.codec", "fleetpulse.config"]):
    from targets import TARGETS, WORDS


def main() -> None:
    name, *options = sys.argv[1:]
    with tempfile.NamedTemporaryFile("w", suffix=".dict", delete=False) as words:
        words.writelines(f"{as_word(word)}\n" for word in WORDS[name])
    atheris.Setup([sys.argv[0], f"-dict={words.name}", *options], TARGETS[name])
    atheris.Fuzz()


def as_word(word: str) -> str:
    """Return a word as libFuzzer's dictionaries spell it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"'


if __name__ == "__main__":
    main()
