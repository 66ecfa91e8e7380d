"""Native L2 books made from the tape.

A :class:`BookSet` applies polled batches of records to the books of many instruments at once; a :class:`Book` is
a view of one of them. Used in the process of whoever wants books: a consumer, the book keeper::

    books = BookSet()
    books.apply(batch, reader.poll(batch))
    bid_price, bid_size = books[instrument_id].best_bid
"""

from mdring.book._book import PRICE_LEVEL, Book, BookSet, Fill, Snapshot

__all__ = ["PRICE_LEVEL", "Book", "BookSet", "Fill", "Snapshot"]
