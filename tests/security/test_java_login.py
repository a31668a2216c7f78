"""A user and a password in Java's login settings stay what they are, or are refused."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from installation import Installation

from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.secret import Secret
from fleetpulse.edges.kafka.access import KafkaAccess, Login
from fleetpulse.edges.kafka.grants import set_users
from fleetpulse.roles.setup import BROKER_JARS, ready_jars, ready_java

USER = 'who "is"; required\\ debug=true,\''
WORD = 'c4nary" user="admin\\"; \\n\\\\ # \' = \\u0041 ${env:HOME} %s'


def access(installation: Installation, user: str, password: str) -> KafkaAccess:
    login = Login(user, Path(os.devnull), lambda _path: Secret(password))
    return replace(installation.access("monitor"), login=login)


def properties(settings: Mapping[str, str]) -> str:
    """Return settings as a file that Java reads, where a backslash begins an escape."""
    return "".join(f"{key}={value}\n".replace("\\", "\\\\") for key, value in settings.items())


def listed(settings: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Ask the broker for its topics with Kafka's own client."""
    path = folder / "client.properties"
    path.write_text(
        properties({**settings, "request.timeout.ms": "10000", "default.api.timeout.ms": "20000"})
    )
    java = ready_java(os.environ)
    jars = ready_jars(BROKER_JARS, os.environ, java, lambda _line: None)
    where = ("--bootstrap-server", settings["bootstrap.servers"], "--command-config", str(path))
    command = [
        *(str(java.executable), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
        *("-cp", os.pathsep.join(map(str, jars)), "kafka.admin.ConfigCommand"),
        *("--describe", "--entity-type", "topics", *where),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_quotes_and_backslashes_in_a_login_reach_kafka_as_they_are(
    installation: Installation, tmp_path: Path
) -> None:
    admin = installation.access("broker")
    set_users(admin, {USER: Secret(WORD)}, [])
    try:
        right = listed(access(installation, USER, WORD).java_settings(), tmp_path)
        assert right.returncode == 0, right.stderr
        wrong = listed(access(installation, USER, f"{WORD}x").java_settings(), tmp_path)
        assert wrong.returncode != 0
        assert "Authentication failed" in wrong.stdout + wrong.stderr
    finally:
        set_users(admin, {}, [USER])


@pytest.mark.parametrize("text", ["two\nlines", "tab\tted", "käse", "nul\0", "\x7f"])
def test_what_java_would_not_read_as_it_is_is_refused(
    installation: Installation, text: str
) -> None:
    for user, password in ((text, "password"), ("monitor", text)):
        with pytest.raises(UsageError, match="is one line of ASCII") as caught:
            access(installation, user, password).java_settings()
        assert text not in str(caught.value)
