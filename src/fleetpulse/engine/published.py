"""Closed windows -> messages of the windows topic, without an object for each.

What a message says is what codec/window_message.py says (tests/property/test_engine_published.py).
"""

import json
from collections.abc import Iterator
from typing import Final

import numpy as np

from fleetpulse.codec.window_message import encode_window
from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.clock import iso_text
from fleetpulse.domain.metric import Statistic
from fleetpulse.engine.block import (
    Block,
    block_of,
    decimal_block,
    id_block,
    integer_block,
    joined,
    replaced,
    text_of,
)
from fleetpulse.engine.text import Ints
from fleetpulse.engine.units import MICROS
from fleetpulse.engine.window import Windows

_NULL: Final = b"null"
# Bounds the memory of blocks; about half a KiB a window; larger blocks are slower, too.
_AT_ONCE: Final = 1 << 12


def published(windows: Windows) -> Iterator[bytes]:
    """Yield the value of each window's message, in order."""
    if windows.arithmetic is not Arithmetic.EXACT:
        # Its exact quotients are too long for 64 bits.
        yield from map(encode_window, windows.closed())
        return
    for at in range(0, len(windows), _AT_ONCE):
        yield from _messages(windows.taken(slice(at, at + _AT_ONCE)))


def _messages(windows: Windows) -> list[bytes]:
    starts_ms, which = np.unique(windows.starts_ms, return_inverse=True)
    starts = block_of([iso_text(one).encode() for one in starts_ms.tolist()])
    ends = block_of([iso_text(one + windows.size_ms).encode() for one in starts_ms.tolist()])
    labels = block_of([json.dumps(text).encode() for text in windows.texts])
    first, second = windows.family.metrics
    lines = joined(
        [
            f'{{"family":"{windows.family.name}","server_id":"'.encode(),
            id_block(windows.server_ids),
            b'","start":"',
            starts[which],
            b'","end":"',
            ends[which],
            b'","alert":',
            labels[windows.labels],
            f',"closed_by":"{windows.closed_by}","metrics":{{"{first.name}":'.encode(),
            *_metric(windows, 0),
            f',"{second.name}":'.encode(),
            *_metric(windows, 1),
            b"}}\n",
        ]
    )
    return text_of(lines).splitlines()


def _metric(windows: Windows, side: int) -> list[bytes | Block]:
    (total,), samples = windows.totals[side], windows.samples[side]
    is_empty = samples == 0
    is_mean = windows.family.metrics[side].statistic is Statistic.MEAN
    divisor = np.maximum(samples, 1) * MICROS if is_mean else np.full_like(samples, MICROS)
    return [
        b'{"reported":',
        replaced(decimal_block(windows.hundredths[side]), is_empty, _NULL),
        b',"exact":',
        replaced(_quotient(total, divisor), is_empty, _NULL),
        b',"samples":',
        integer_block(samples),
        b',"samples_over":',
        integer_block(windows.samples_over[side]),
        b"}",
    ]


def _quotient(total: Ints, divisor: Ints) -> Block:
    """Return quotients in lowest terms between quotes; a whole number has no denominator."""
    shared = np.gcd(total, divisor)
    denominator = divisor // shared
    below = joined([b"/", integer_block(denominator)])
    return joined(
        [b'"', integer_block(total // shared), replaced(below, denominator == 1, b""), b'"']
    )
