"""Damage to frames: a byte, a JSON token, a cut, a part doubled or dropped, a digit changed. Seeded, hence repeatable.

damager = Damager(frames, seed=1)
damager.frame()     # one of the frames, with one to four things wrong
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

TOKENS = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u0000", b"\\ud800", b"null", b"true", b"-1", b"0", b"1e999",
    b"1.5", b"99999999999999999999999999", b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616",
    b"NaN", b"\xff", b"\0", b"\xc3", b'"1"', b'"-1"', b'"x"', b'""', b"[]", b"{}", b'["1","1"]', b'["1"]', b"[" * 200,
    b" ", b"1e-400", b"0.0000000000000000000000001", b'"2026-13-45T99:99:99Z"',
)  # fmt: skip


class Damager:
    """Takes frames and damages them."""

    def __init__(self, samples: Sequence[bytes], seed: int) -> None:
        self._samples = list(dict.fromkeys(samples))
        self._random = Random(seed)

    def frame(self) -> bytes:
        """One more."""
        random = self._random
        frame = bytearray(random.choice(self._samples))
        for _ in range(random.randint(1, 4)):
            at = random.randint(0, len(frame))
            match random.randrange(7):
                case 0:
                    frame[at : at + 1] = random.randbytes(1)
                case 1 | 2:
                    frame[at : at + random.randint(0, 12)] = random.choice(TOKENS)
                case 3 if random.random() < 0.3:
                    del frame[at:]
                case 4:
                    del frame[at : at + random.randint(1, 20)]
                case 5:
                    frame[at:at] = frame[at : at + random.randint(1, 40)]
                case _:
                    digits = [index for index, byte in enumerate(frame) if 48 <= byte <= 57]
                    if digits:
                        frame[random.choice(digits)] = random.choice(b"0123456789")
        return bytes(frame)
