"""Where in a role's files a partition's log broke: what lies before is of a log that is gone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from fleetpulse.domain.errors import DamagedState
from fleetpulse.domain.position import Gap, Partition


@dataclass(frozen=True, slots=True)
class GapMark:
    """The last break of a partition's log.

    From `resume_offset` on its lines stand behind the first `sizes_bytes` of each file.
    `done_offsets` counts the offsets that were done before, in logs that went on until a break;
    `clock_ms` is the latest instant that a clock time had given.
    """

    resume_offset: int
    done_offsets: int
    clock_ms: int | None
    sizes_bytes: Mapping[str, int]

    @staticmethod
    def name(partition: Partition) -> str:
        """Return the name of the note that keeps a partition's mark."""
        return f"gap {partition}"

    @classmethod
    def of(cls, gap: Gap, sizes_bytes: Mapping[str, int], before: Self | None) -> Self:
        """Return the mark of a gap; `before` is that of an earlier one."""
        position = gap.position
        earlier, start = (before.done_offsets, before.resume_offset) if before else (0, 0)
        clock_ms = position.clock.last_ms if position.clock else None
        done_offsets = earlier + position.next_offset - start
        return cls(gap.resume_offset, done_offsets, clock_ms, sizes_bytes)

    def pack(self) -> bytes:
        """Return the content of the note."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({**fields, "sizes_bytes": dict(self.sizes_bytes)}).encode()

    @classmethod
    def unpack(cls, content: bytes, where: str) -> Self:
        """Return the mark in a note; raises DamagedState, naming `where` the note is from."""
        why: object = "it holds something else"
        try:
            found = cls(**json.loads(content))
            if found._is_sound():
                return found
        except (TypeError, ValueError, RecursionError) as err:
            why = err
        raise DamagedState(
            f"{where}: a note of a gap cannot be read ({why}); run the version that wrote it"
        )

    def _is_sound(self) -> bool:
        sizes_bytes = self.sizes_bytes
        return (
            type(self.resume_offset) is int
            and type(self.done_offsets) is int
            and (self.clock_ms is None or type(self.clock_ms) is int)
            and isinstance(sizes_bytes, dict)
            and all(type(size) is int for size in sizes_bytes.values())
        )
