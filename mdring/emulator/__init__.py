"""Emulated venues: real WebSockets and REST on loopback over one simulated market, with faults and the truth.

One process (``python -m mdring.emulator``), one event loop; the demo's default, the test bench, the load
generator. It never imports ``mdring.feed``: a venue's face is written from the venue's documentation, so a
third-party client can be tested against it as well as ours::

    pacer ── steps due ──▶ market ── Change, Trade, Top ──▶ venue face ── frames ──▶ connection ──▶ client
                             │                                  ▲                     ▲    │
                           books ◀─────────── REST ─────────────┤                  faults  └─▶ truth log
                             └─────────────── truth ──────────── control endpoint ────┘

In the order of that flow: ``instruments`` and ``book`` (the universe, L2 books with history), ``market`` (what
moves them), ``derivatives`` (what else is told of perpetuals and futures), ``pacer`` (when), ``window`` (changes
collapsed into a venue's deltas), ``venue`` (the port that ``adapters/emulators/*.py`` implement). What most of these
are made of: ``listing`` (products, and the events that reach them), ``stream`` (topics and who listens), ``rhythm``
(beats, intervals, silences), ``text`` (numbers, times, levels, JSON), ``limits`` (what venues forbid);
``named_streams`` and ``weighed_calls`` (what one operator's venues have in common). Then ``faults``, ``truth``,
``connection`` (one client), ``host`` (one venue's ports), ``server`` (all of it), ``control`` and ``client`` (steering
from another process).
"""
