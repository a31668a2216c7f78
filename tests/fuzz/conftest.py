"""Fuzzing in a full run goes on beside all the other tests, and is asked for its result last."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import Fuzzing, lack

from chaos_table import IS_FULL

_FUZZING = pytest.StashKey[Fuzzing]()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = any("fuzzing" in getattr(item, "fixturenames", ()) for item in session.items)
    if IS_FULL and wanted and not session.config.option.collectonly and lack() is None:
        _begun(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _FUZZING in config.stash:
        config.stash[_FUZZING].end()


@pytest.fixture(scope="session")
def fuzzing(request: pytest.FixtureRequest) -> Fuzzing:
    """All targets under fuzzing."""
    if what := lack():
        pytest.skip(what)
    return _begun(request.config)


@pytest.fixture
def seed(fuzzing: Fuzzing) -> int:
    """All targets have one seed, whichever test prints it."""
    return fuzzing.seed


def _begun(config: pytest.Config) -> Fuzzing:
    if _FUZZING not in config.stash:
        config.stash[_FUZZING] = Fuzzing()
    return config.stash[_FUZZING]
