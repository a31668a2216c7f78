import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.edges.kafka.address import free_port

sys.path.insert(0, str(Path(__file__).parent))

from installation import Installation


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A secured installation whose broker runs and has its topics."""
    made = Installation.made(tmp_path_factory.mktemp("installation"), free_port())
    started = made.broker("start")
    assert started.code == 0, started.err
    try:
        created = made.run("broker", "topics", "create")
        assert created.code == 0, created.err
        yield made
    finally:
        made.broker("stop")
