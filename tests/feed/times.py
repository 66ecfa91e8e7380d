"""When the messages of these tests were made and came, ns."""

from __future__ import annotations

TS_RECV = 1_700_000_000_000_000_000
TS_EVENT = TS_RECV - 5_000_000
