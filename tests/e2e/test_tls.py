"""The whole way over TLS: wss and https, verified against an authority of our own."""

from __future__ import annotations

from pathlib import Path

from mdring.counters import Counter
from tests.e2e.system import VENUE, System


def test_over_tls_all_that_was_sent_is_on_the_tape_before_and_after_a_reconnect(directory: Path) -> None:
    with System(directory, rate=500, tls=True) as system:
        emulator = system.emulators["alpha"]
        assert emulator.websocket_url(VENUE).startswith("wss://")
        assert emulator.rest_url(VENUE).startswith("https://")
        system.start().wait_until_up()
        with system.recorder() as tape:
            emulator.inject(VENUE, "reset")
            system.wait_until(lambda: system.counter("worker-alpha", Counter.CONNECTS) == 2, "a new connection")
            system.wait_until_synced()
            system.settle(tape)
            system.audit(tape)
            assert system.stop() == 0
