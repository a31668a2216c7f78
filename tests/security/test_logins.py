"""Wrong, changed and revoked logins: one clear line, patience, and exact files afterwards."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from installation import DATASET, DENIED, Installation, Role, awaited, columns

WATCHED_S = 10.0
COMMANDS = {
    "producer": ("producer", "--dataset", str(DATASET), "--limit", "1"),
    "consumer1": ("consumer1",),
    "monitor": ("monitor",),
}


def end(role: Role) -> str:
    """Return the last message of a role that ended by itself."""
    role.process.wait(60)
    done = role.stop()
    assert done.code == DENIED, done.err
    return done.error


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_password_is_named_and_not_shown(
    installation: Installation, tmp_path: Path, name: str
) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("quite-another-password\n")
    wrong.chmod(0o600)
    command = (*COMMANDS[name], "--connect-timeout", "4s")
    with installation.running(name, *command, security__password_file=wrong) as role:
        error = end(role)
    assert f"the login of user {name} is refused" in error
    assert "quite-another" not in "".join(role.said())


def test_an_unknown_user_is_named(installation: Installation) -> None:
    command = ("consumer1", "--connect-timeout", "4s")
    with installation.running("consumer1", *command, security__user="nobody") as role:
        assert "the login of user nobody is refused" in end(role)


def test_a_permission_taken_away_while_a_consumer_runs_costs_a_pause_and_no_row(
    installation: Installation,
) -> None:
    (grant,) = [
        one
        for one in installation.granted()
        if (one.user, one.name, one.operation) == ("consumer1", "topic-cpu", "READ")
    ]
    with installation.running("consumer1", "consumer1") as role:
        sent = installation.produce(100)
        awaited(lambda: role.rows("cpu_data.csv")[-100:] == columns(sent, 0), "all rows came")
        before = role.rows("cpu_data.csv")
        with installation.without(grant):
            sent += installation.produce(50)
            role.await_said("user consumer1 lacks a permission")
            said = role.said()
            time.sleep(WATCHED_S)
            assert role.said() == said
            assert role.rows("cpu_data.csv") == before
        role.await_said("broker is back")
        awaited(lambda: role.rows("mem_data.csv")[-150:] == columns(sent, 1), "all rows came")
        awaited(lambda: role.rows("cpu_data.csv")[-150:] == columns(sent, 0), "all rows came")
        assert len(role.rows("cpu_data.csv")) == len(before) + 50
        assert role.stop().code == 0


def test_a_role_with_an_old_password_says_so_and_goes_on_once_it_has_the_new_one(
    installation: Installation,
) -> None:
    path = installation.folder("consumer2") / "password"
    old = path.read_bytes()
    with installation.running("consumer2", "consumer2") as role:
        role.await_said("reading from offset")
        installation.renew("consumer2", "--passwords")
        new = path.read_bytes()
        assert installation.broker("start").code == 0
        # Who is logged in stays so; a file that was replaced lets it log in again.
        path.write_bytes(old)
        role.await_said("the login of user consumer2 is refused")
        said = role.said()
        time.sleep(WATCHED_S)
        assert len(role.said()) <= len(said) + 1, role.said()
        path.write_bytes(new)
        sent = installation.produce(30)
        awaited(lambda: role.rows("net_data.csv")[-30:] == columns(sent, 2, 3), "rows came")
        assert role.stop().code == 0
    assert old != new
    for secret in (old, new):
        assert secret.decode().strip() not in "\n".join(role.said())
