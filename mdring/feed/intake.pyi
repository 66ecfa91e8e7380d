from collections.abc import Callable
from typing import final

from picows import WSFrame, WSTransport

from mdring.feed.direct import DirectPath

@final
class Intake:
    """What comes on one connection, and when. Times are ns of CLOCK_MONOTONIC, but for ``ts_recv``."""

    is_open: bool
    """Whether messages are taken."""
    in_parts: bool
    """Whether a message is coming in fragments; no frame is taken meanwhile."""
    last_heard_ns: int
    """When anything came last."""
    first_data_ns: int
    """When market data came first; 0: not yet."""
    last_data_ns: int
    """When market data came last; 0: not yet."""
    def __init__(self, connection: int, path: DirectPath | None, on_first_data: Callable[[], object]) -> None:
        """``path`` None: nothing is ever taken. ``on_first_data`` is called once, when market data has come."""
    def before(
        self,
        rest: Callable[[WSTransport, WSFrame], None],
        fail: Callable[[WSTransport, BaseException], None],
    ) -> Callable[[WSTransport, WSFrame], None]:
        """What picows is to call with each frame in place of ``rest``, which gets what is not taken. ``fail`` is called
        with an exception, which is then raised."""
    def release(self) -> None:
        """The connection is gone: forget ``rest`` and ``fail``, or their owner is left to the garbage collector."""
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take the frame, or leave it to ``rest``."""
    def take(self, payload: bytes, last_in_read: int) -> bool:
        """Whether the direct path has taken this message; nobody has to do anything more with it then."""
    def hear(self) -> int:
        """Something has come: the ``ts_recv`` of the read that has brought it, CLOCK_REALTIME."""
    def end_read(self) -> None:
        """The read that was going on has brought nothing further."""
    def note_data(self) -> None:
        """What was heard last is market data."""
