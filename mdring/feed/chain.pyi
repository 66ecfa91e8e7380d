class Chain:
    """Where one stream of one instrument stands. It knows ids alone: of a time or a price it knows nothing.

    Ids are 0 to 2**63 - 1, and -1 where any may come; setting another one raises OverflowError.

    * ``live``: messages follow one another, so that the normal next one may be taken without looking further.
    * ``first`` and ``last``: the ids that the last message covered. If messages name the one before them instead of a
      first id, ``first`` is the one that the last message named. Streams without ids leave both at 0.
    * ``chained``: whether messages name the one before them.
    * ``due``: what the next message should name, as the one before it if ``chained``, else as its first id.
    """

    live: bool
    chained: bool
    first: int
    last: int
    due: int
