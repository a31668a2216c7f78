"""Fuzzes a target with atheris: python tests/fuzz/harness.py TARGET [libFuzzer options, files].

With a file it runs that one input, which is how a failure is repeated.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

# Not YAML's own parser: watched it takes seventeen times as long, and a second is the limit.
with atheris.instrument_imports(include=["fleetpulse.codec", "fleetpulse.config"]):
    from targets import TARGETS


if __name__ == "__main__":
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
