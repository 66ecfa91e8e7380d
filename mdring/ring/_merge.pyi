from typing import Final

from mdring.ring._ring import Reader, Words, Writer

INTENT_WORDS: Final[int]

class Merge:
    def __init__(
        self,
        tape: Writer,
        sources: dict[int, Reader],
        words: Words,
        *,
        positions_word: int,
        intents_word: int,
        waiting_word: int,
        latency_word: int,
        key_offset: int,
        stamp_offset: int,
        max_batch: int,
        max_share: int,
    ) -> None: ...
    @property
    def cursor(self) -> int: ...
    def positions(self) -> dict[int, int]: ...
    def do_work(self) -> int: ...
    def run(self, idle: int, spin_ns: int, slice_ns: int) -> int: ...
    def tell_all(self) -> None: ...
