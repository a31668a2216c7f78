"""The audit on a secured broker: a consumer's own permissions are enough, and needed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from installation import DENIED, Installation


def test_a_consumers_login_is_enough_and_a_refused_one_is_named(
    installation: Installation, tmp_path: Path
) -> None:
    installation.produce(50)
    output = tmp_path / "output"
    done = installation.run("consumer1", "consumer1", "--until-idle", "1s", output_dir=output)
    assert done.code == 0, done.err
    done = installation.run("consumer1", "audit", output_dir=output)
    assert done.code == 0, done.err
    assert "every record is in exactly one place" in done.out
    wrong = tmp_path / "password"
    wrong.write_text("quite-another-password\n")
    wrong.chmod(0o600)
    command = ("audit", "--connect-timeout", "4s")
    done = installation.run("consumer1", *command, output_dir=output, security__password_file=wrong)
    assert done.code == DENIED, done.err
    assert "the login of user consumer1 is refused" in done.error
