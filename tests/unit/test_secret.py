import copy
import dataclasses
import json
import pickle
import traceback

import pytest

from fleetpulse.domain.secret import Secret

CANARY = "canary-5f1c"


@dataclasses.dataclass(frozen=True)
class Login:
    user: str
    password: Secret


def test_a_secret_is_revealed_where_it_is_asked_for() -> None:
    assert Secret(CANARY).reveal() == CANARY


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(CANARY)),
        str(Secret(CANARY)),
        f"{Secret(CANARY)}",
        f"{Secret(CANARY)!r:>40}",
        "%s" % Secret(CANARY),  # noqa: UP031  old code is a way out, too
        repr(Login("admin", Secret(CANARY))),
        repr([Secret(CANARY)]),
        repr(dataclasses.asdict(Login("admin", Secret(CANARY)))),
        repr(hash(Secret(CANARY))),
        json.dumps(Secret(CANARY), default=str),
    ],
)
def test_a_secret_never_shows_itself(shown: str) -> None:
    assert CANARY not in shown


def test_all_secrets_look_the_same() -> None:
    assert repr(Secret("a")) == repr(Secret("a" * 64))


def test_a_secret_is_in_no_traceback_with_local_variables() -> None:
    def fail(password: Secret) -> None:
        raise ValueError(f"refused {password}")

    with pytest.raises(ValueError, match="refused") as caught:
        fail(Secret(CANARY))
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "password" in "".join(told.format())
    inner = told.stack[-1]
    assert CANARY not in str(inner.locals)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="not written anywhere"):
        pickle.dumps(Secret(CANARY), protocol)


def test_a_secret_has_no_fields_to_dump() -> None:
    with pytest.raises(TypeError):
        vars(Secret(CANARY))
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))


def test_a_copy_is_the_secret_itself() -> None:
    secret = Secret(CANARY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_secrets_are_equal_by_their_text() -> None:
    assert Secret("a") == Secret("a")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("ä") != Secret("b")
    assert Secret("a") != "a"


def test_a_secret_does_not_change() -> None:
    secret = Secret("a")
    with pytest.raises(AttributeError, match="does not change"):
        secret.other = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="does not change"):
        del secret._text  # noqa: SLF001
    assert secret.reveal() == "a"


def test_an_empty_text_is_no_secret() -> None:
    with pytest.raises(ValueError, match="empty"):
        Secret("")
