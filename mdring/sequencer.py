"""The sequencer, process 2: merges the venue rings onto the tape and so gives every record its global seq.

Publishing on the tape *is* numbering: ``seq`` rises by exactly 1, and a restarted sequencer goes on where the tape
ends, with every record of the venue rings on it exactly once (``ring/merge.h`` says how). Records are merged by
``ts_recv`` among the event groups that are there now; a quiet venue is never waited for.

The supervisor starts it::

    python -m mdring.sequencer --run-folder /dev/shm/mdring/demo --parent 4711
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mdring import log
from mdring.config import from_json
from mdring.counters import INTENTS_WORD, POSITIONS_WORD, WAITING_WORD, Counter, Counters, Histogram
from mdring.process import accept_stop, die_with_parent, pin_to_core, short_turns
from mdring.record import FINGERPRINT, LAYOUT_VERSION, Flags, offset_of
from mdring.ring import segment
from mdring.ring._merge import Merge
from mdring.ring.idle import IdleStrategy, idle_strategy
from mdring.run_folder import RunFolder

logger = logging.getLogger(__name__)

_SLICE_NS: Final = 50_000_000  # between two looks at signals, and two heartbeats
_FIRST_SEGMENT_WAIT_S: Final = 5.0


class Sequencer:
    """Owns the tape. ``run`` until ``stop``; ``do_work`` is one duty cycle, for those who drive it themselves."""

    def __init__(self, folder: RunFolder, venues: Mapping[str, int], *, max_batch: int = 1024) -> None:
        """Take over the tape of ``folder`` and recover. ``venues`` maps each venue to its venue_id.

        Raises SegmentError, AlreadyWritten if another sequencer lives.
        """
        self.counters = Counters.open_as_writer(folder.counters("sequencer"), os.getpid())
        self._tape = _attach_ring(folder.tape, writable=True)
        self._rings = {venue_id: _attach_ring(folder.venue_ring(venue)) for venue, venue_id in venues.items()}
        ring_fields = {"flags_offset": offset_of("flags"), "last_flag": int(Flags.LAST)}
        self._merge = Merge(
            self._tape.writer(**ring_fields),
            {venue_id: ring.reader(**ring_fields, position=0) for venue_id, ring in self._rings.items()},
            self.counters.words,
            positions_word=POSITIONS_WORD,
            intents_word=INTENTS_WORD,
            waiting_word=WAITING_WORD,
            latency_word=self.counters.histogram_word(Histogram.RECEIVE_TO_SEQUENCED),
            key_offset=offset_of("ts_recv"),
            stamp_offset=offset_of("ts_seq"),
            max_batch=max_batch,
            max_share=max(1, max_batch // 2),
        )
        self.counters.store(Counter.EPOCH, self._tape.epoch)
        self.counters.store(Counter.RECORDS, self.cursor)
        self._stopping = False

    @property
    def cursor(self) -> int:
        """The highest seq on the tape."""
        return self._merge.cursor

    def do_work(self) -> int:
        """Publish at most one batch; returns its number of records."""
        return self._merge.do_work()

    def stop(self) -> None:
        """Have ``run`` drain the venue rings and return."""
        self._stopping = True

    def run(self, idle: IdleStrategy) -> None:
        """Merge until ``stop``, then until the venue rings are empty."""
        while not self._stopping:
            self._merge.run(idle.native, idle.spin_ns, _SLICE_NS)
            self._report()
        while self.do_work():
            pass
        self._merge.tell_all()
        self._report()

    def _report(self) -> None:
        positions = self._merge.positions()
        self.counters.store(Counter.RECORDS, self.cursor)
        # A record may have been taken before its writer has moved the cursor: that shows first, and may be preempted.
        waiting = (max(0, ring.cursor - positions[venue]) for venue, ring in self._rings.items())
        self.counters.store(Counter.LAG, sum(waiting))
        self.counters.heartbeat()


def _attach_ring(path: Path, *, writable: bool = False) -> segment.Segment:
    return segment.attach(
        path,
        segment.SegmentKind.RING,
        version=LAYOUT_VERSION,
        fingerprint=FINGERPRINT,
        writable=writable,
        wait_s=_FIRST_SEGMENT_WAIT_S,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the sequencer of a run folder until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="mdring.sequencer", description="Merge a run's venue rings onto its tape.")
    parser.add_argument("--run-folder", type=Path, required=True)
    parser.add_argument("--parent", type=int, help="end when this process does")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        die_with_parent(options.parent)
    folder = RunFolder(options.run_folder)
    config = from_json(folder.config.read_bytes())
    log.configure("sequencer", config.log.level)
    pin_to_core(config.sequencer.cpu)
    sequencer = Sequencer(folder, config.venue_ids, max_batch=config.sequencer.max_batch)
    signal.signal(signal.SIGTERM, lambda *_: sequencer.stop())
    accept_stop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the supervisor orders the stop
    logger.info("sequencing from seq %d", sequencer.cursor + 1)
    with short_turns():
        sequencer.run(idle_strategy(config.sequencer.idle, config.sequencer.spin_us))
    logger.info("stopped at seq %d", sequencer.cursor)
    return 0


if __name__ == "__main__":
    sys.exit(main())
