class Chain:
    """Ids of one stream of one instrument, ns and prices aside: 0 to 2**63 - 1, and -1 for "any".

    ``live``: messages follow one another, so that the normal next one may be taken without looking further.
    ``first`` and ``last``: the ids that the last message covered; of a chained one without a first id, ``first`` is the
    previous id that it named. ``due``: what the next one should name, as its
    previous id if ``chained``, else as its first. Setting an id beyond 63 bits raises OverflowError.
    """

    live: bool
    chained: bool
    first: int
    last: int
    due: int
