"""Lists of names cut into what one frame may hold, by number and by bytes.

In the worker's adapter, for venues that take many streams in one request but bound the frame::

    for names in portions(streams, most=80, most_bytes=4_000):
        requests.append(self._subscribe(names))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

BESIDE_BYTES: Final = 3
"""Of each name in a JSON array: its quotes, and a comma."""


def portions(names: Sequence[str], most: int, most_bytes: int) -> Iterator[list[str]]:
    """At most ``most`` names each, of at most ``most_bytes`` in a JSON array, in order. A name that is longer than that
    is a portion by itself."""
    portion: list[str] = []
    taken = 0
    for name in names:
        size = len(name.encode()) + BESIDE_BYTES
        if portion and (len(portion) == most or taken + size > most_bytes):
            yield portion
            portion, taken = [], 0
        portion.append(name)
        taken += size
    if portion:
        yield portion
