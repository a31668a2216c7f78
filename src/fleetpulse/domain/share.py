"""The partitions that one of several consumers reads, and the names that follow from them."""

import re
from dataclasses import dataclass
from typing import Final

_TEXT: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Share:
    """The partitions `first` to `last`, both included, of each topic."""

    first: int
    last: int

    @classmethod
    def of(cls, text: str) -> "Share":
        """Return the share in `0-3` or `2`; ValueError for anything else.

        >>> Share.of("0-3")
        Share(first=0, last=3)
        """
        match = _TEXT.fullmatch(text)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"found {text[:20]!r}, wanted partitions such as 0-3 or 2")
        return cls(int(match[1]), int(match[2] or match[1]))

    def __contains__(self, number: object) -> bool:
        """Tell whether a partition's number belongs to it."""
        return isinstance(number, int) and self.first <= number <= self.last

    @property
    def suffix(self) -> str:
        """Return what its files and roles are called by: `.p0-3`, or `.p2` for one partition."""
        last = "" if self.last == self.first else f"-{self.last}"
        return f".p{self.first}{last}"
