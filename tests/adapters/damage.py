"""Damage to frames: wrong values, or a byte, a JSON token, a cut, a part doubled or dropped. Seeded, hence repeatable.

damager = Damager(seed=1)
damager.of(frame)     # the frame, with one to four things wrong
"""

from __future__ import annotations

import re
from random import Random

VALUES = (
    b"null", b"true", b"-1", b"0", b"1.5", b"1e999", b"1e-400", b"0.0000000000000000000000001",
    b"99999999999999999999999999", b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616",
    b'"0"', b'"1"', b'"-1"', b'"1e999"', b'"9223372036854775807"', b'"0.00000000000000000000001"', b'"x"', b'""', b"[]",
    b"{}", b'["1","1"]', b'["1"]', b'"2026-13-45T99:99:99Z"',
)  # fmt: skip
TOKENS = (
    *VALUES, b'"', b"{", b"}", b"[", b"]", b",", b":", b" ", b"\\", b"\\u0000", b"\\ud800", b"NaN", b"\xff", b"\0",
    b"\xc3", b"[" * 200,
)  # fmt: skip


VALUE = re.compile(rb'"[^"\\]*"|-?\d+(?:\.\d+)?|true|false|null')
"""A scalar of JSON."""


class Damager:
    """Damages frames."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def of(self, sound: bytes) -> bytes:
        """What has become of a frame. Half of them are JSON still, with wrong values."""
        random, frame = self._random, bytearray(sound)
        if random.random() < 0.5:
            for _ in range(random.choice((1, 1, 2, 3))):
                self._change_value(frame)
        else:
            for _ in range(random.choice((1, 1, 2, 4))):
                self._change_bytes(frame)
        return bytes(frame)

    def _change_value(self, frame: bytearray) -> None:
        """A value becomes another one: one of the list, that of another place, or itself with another digit."""
        random, values = self._random, list(VALUE.finditer(frame))
        if not values:
            return
        value = random.choice(values)
        match random.randrange(4):
            case 0:
                new = random.choice(VALUES)
            case 1:
                new = random.choice(values)[0]
            case _:
                new = bytearray(value[0])
                digits = [index for index, byte in enumerate(new) if 48 <= byte <= 57]
                if digits:
                    new[random.choice(digits)] = random.choice(b"0123456789")
        frame[value.start() : value.end()] = new

    def _change_bytes(self, frame: bytearray) -> None:
        random, at = self._random, self._random.randint(0, len(frame))
        match random.randrange(6):
            case 0:
                frame[at : at + 1] = random.randbytes(1)
            case 1 | 2:
                frame[at : at + random.randint(0, 12)] = random.choice(TOKENS)
            case 3 if random.random() < 0.3:
                del frame[at:]
            case 4:
                del frame[at : at + random.randint(1, 20)]
            case _:
                frame[at:at] = frame[at : at + random.randint(1, 40)]
