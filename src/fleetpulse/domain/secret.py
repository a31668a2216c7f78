"""A text that must not be seen, such as a password or a token."""

import hmac
from typing import Final, NoReturn, Self

_SHOWN: Final = "Secret(hidden)"


class Secret:
    """A text that shows itself only where `reveal` is called, at the place of its use.

    Messages, logs, tracebacks, `dataclasses.asdict` and `json.dumps` get its name or an error, and
    it refuses to be pickled. Two of them are compared in constant time.

    >>> f"login {Secret('tell nobody')}"
    'login Secret(hidden)'
    """

    __slots__ = ("_text",)

    _text: str

    def __init__(self, text: str) -> None:
        """Keep a text; ValueError for an empty one."""
        if not text:
            raise ValueError("wanted a secret, found an empty text")
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """Return the text itself, for the library that needs it."""
        return self._text

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: a secret does not change."""
        raise AttributeError("a secret does not change")

    def __delattr__(self, name: str) -> NoReturn:
        """Refuse: a secret does not change."""
        raise AttributeError("a secret does not change")

    def __repr__(self) -> str:
        """Return a text that says nothing about the secret, not even its length."""
        return _SHOWN

    def __eq__(self, other: object) -> bool:
        """Tell whether both hold the same text."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        """Return a number that equal secrets share."""
        return hash((Secret, self._text))

    def __copy__(self) -> Self:
        """Return this one: it never changes."""
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        """Return this one: it never changes."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a pickle is readable text."""
        raise TypeError("a secret is not written anywhere")
