# cython: language_level=3
"""Where a stream's ids stand, for Python and native code alike: one truth that both read and move on.

``BookSync``, ``SocketBook`` and ``IdSequence`` are chains. Their rules are Python; a direct route (``direct.pyx``)
asks a chain only whether a message is the normal next one, moves it on if so, and leaves every other to the rules.
Part of the worker.
"""

cimport cython


cdef class Chain:
    """Ids of one stream of one instrument, ns and prices aside: 0 to 2**63 - 1, and -1 for "any".

    ``live``: messages follow one another, so that the normal next one may be taken without looking further.
    ``first`` and ``last``: the ids that the last message covered; of a chained one without a first id, ``first`` is the
    previous id that it named. ``due``: what the next one should name, as its
    previous id if ``chained``, else as its first. Setting an id beyond 63 bits raises OverflowError.
    """
