from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

import numpy as np
import numpy.typing as npt

from mdring.book import Book, BookSet
from mdring.instrument import Instrument

_EventType = TypeVar("_EventType")

@final
class Columns:
    """Some fields of a view of the record, in an order: integers and fixed text."""

    def __init__(self, view: np.dtype[np.void], names: Sequence[str]) -> None: ...
    def events(
        self, records: npt.NDArray[np.void], make: Callable[..., _EventType], by_id: Callable[[int], Instrument]
    ) -> list[_EventType]:
        """``make(*values, instrument)`` of each record; ``by_id`` gives the instrument, None where the id is 0."""

@final
class Callbacks:
    """Calls a strategy for the records of batches, in their order. ``current`` is what the last call was given."""

    @property
    def current(self) -> object: ...
    def __init__(
        self,
        by_id: Callable[[int], Instrument],
        calls: Mapping[int, tuple[Columns, Callable[..., Any], Callable[[Any], object]]],
        on_book: Callable[[Book], object] | None = None,
    ) -> None:
        """``calls``: kind → (columns, what to make of their values and the instrument, whom to call). ``on_book`` is
        called with each book after each event group that changed it; books are applied only then."""
    def deliver(self, batch: npt.NDArray[np.void], books: BookSet | None = None) -> None:
        """Call for each record of the batch; with ``on_book``, apply the batch to ``books`` group by group."""
