"""What a venue lists: products, each with its book and streams, and a face that takes the market's events to them.

Most venues are written with these two (``venue.py`` is the port that they implement)::

    class AcmeEmulator(ListedVenue[Product]):
        def __init__(self, market, host, options):
            super().__init__(Product(name, book, host) for name, book in named(market.books, venue_name))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.market import Change, Event, Top
from mdring.emulator.venue import VenueEmulator
from mdring.symbol import Symbol


class ListedProduct(ABC):
    """One instrument as a venue lists it, under the venue's ``name``."""

    def __init__(self, name: str, book: Book) -> None:
        self.name = name
        self.book = book
        self.symbol = book.spec.symbol

    @property
    @abstractmethod
    def is_drained(self) -> bool:
        """Whether all that has happened is sent."""

    @abstractmethod
    def row(self, price: int, size: int) -> list[str]:
        """A level as the venue writes it: price and size come first."""

    @abstractmethod
    def on_trade(self, trade: Trade) -> None:
        """A fill. The change of the book that it makes follows."""

    @abstractmethod
    def on_change(self, change: Change) -> None:
        """A level has another size."""

    @abstractmethod
    def on_top(self, top: Top) -> None:
        """The best bid or ask has changed, after the changes that made it so."""


AnyProduct = TypeVar("AnyProduct", bound=ListedProduct)


class ListedVenue(VenueEmulator, Generic[AnyProduct]):
    """A face that is made of products. ``sessions`` are its open connections."""

    def __init__(self, products: Iterable[AnyProduct]) -> None:
        self.sessions: set[Any] = set()
        self.by_name = {product.name: product for product in products}
        self.by_index = {product.book.index: product for product in self.by_name.values()}

    def on_events(self, events: Sequence[Event]) -> None:
        products = self.by_index
        for event in events:
            product = products.get(event.instrument)
            if product is None:
                continue
            if type(event) is Trade:
                product.on_trade(event)
            elif type(event) is Top:
                product.on_top(event)
            elif type(event) is Change:
                product.on_change(event)

    def is_drained(self) -> bool:
        return all(product.is_drained for product in self.by_index.values())

    def announce_shutdown(self) -> None:
        """Most venues announce nothing: they close."""

    def instruments(self) -> Mapping[str, str]:
        return {product.book.spec.canonical_symbol: name for name, product in self.by_name.items()}

    def book_of(self, instrument: str) -> Book:
        return self.by_name[instrument].book

    def level_text(self, book: Book, level: Level) -> list[str]:
        return self.by_index[book.index].row(*level)[:2]


def named(books: Iterable[Book], name_of: Callable[[Symbol], str | None]) -> Iterator[tuple[str, Book]]:
    """The books that a venue lists, with its names for them; ``name_of`` says None of others."""
    for book in books:
        name = name_of(book.spec.symbol)
        if name is not None:
            yield name, book
