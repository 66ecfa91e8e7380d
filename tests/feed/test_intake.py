"""The intake: which frames it takes to the ring by itself, which it leaves, and the times that it keeps."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from typing import cast

import pytest
from msgspec import Struct
from picows import WSFrame, WSMsgType, WSTransport

from mdring.feed.intake import Intake
from tests.feed.quote_ring import SLOTS, QuoteRing, quote


class Frame(Struct):
    """What the intake asks a frame of picows for."""

    payload: bytes
    msg_type: WSMsgType = WSMsgType.TEXT
    fin: int = 1
    last_in_buffer: int = 1

    def get_payload_as_bytes(self) -> bytes:
        return self.payload


class Line:
    """An intake before the path, what it leaves, and what it tells."""

    def __init__(self, on_first_data: Callable[[], None] | None = None) -> None:
        self.ring = QuoteRing()
        self.told = self.ring.told
        self.rest: list[bytes] = []
        self.errors: list[BaseException] = []
        self.intake = Intake(0, self.ring.path, on_first_data or (lambda: self.told.append("first data")))
        self.intake.is_open = True
        self._on_ws_frame = self.intake.before(
            lambda transport, frame: self.rest.append(frame.get_payload_as_bytes()),
            lambda transport, error: self.errors.append(error),
        )

    def bring(self, *frames: Frame) -> None:
        """As picows does."""
        for frame in frames:
            self._on_ws_frame(cast(WSTransport, None), cast(WSFrame, frame))


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.mark.parametrize("padding", [0, 200])
@pytest.mark.parametrize("kind", [WSMsgType.TEXT, WSMsgType.BINARY])
def test_usual_message_goes_to_the_ring_and_nobody_else_hears_of_it(line: Line, padding: int, kind: WSMsgType) -> None:
    line.bring(Frame(quote(1, padding), kind), Frame(quote(2, padding), kind))
    assert line.ring.numbers() == [1, 2]
    assert line.rest == []


def test_message_that_no_route_takes_is_left(line: Line) -> None:
    strange = [b'{"s":"C"}', b"x" * 300, quote(0), b""]
    line.bring(Frame(quote(5)), *map(Frame, strange), Frame(quote(6)))
    assert line.rest == strange
    assert line.ring.numbers() == [5, 6]


@pytest.mark.parametrize("kind", [WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE, WSMsgType.CONTINUATION])
def test_control_frame_is_left_even_if_it_reads_like_a_message(line: Line, kind: WSMsgType) -> None:
    line.bring(Frame(quote(1), kind))
    assert (line.rest, line.ring.numbers()) == ([quote(1)], [])


def test_frames_are_left_while_a_message_comes_in_fragments(line: Line) -> None:
    line.bring(Frame(quote(1), fin=0))
    line.intake.in_parts = True
    line.bring(Frame(quote(2)))
    line.intake.in_parts = False
    line.bring(Frame(quote(3)))
    assert (line.rest, line.ring.numbers()) == ([quote(1), quote(2)], [3])


def test_joined_message_is_taken_as_others_are(line: Line) -> None:
    assert line.intake.take(quote(1), 1)
    assert not line.intake.take(quote(1), 1)
    assert line.ring.numbers() == [1]


def test_nothing_is_taken_once_the_session_has_ended(line: Line) -> None:
    line.bring(Frame(quote(1)))
    line.intake.is_open = False
    line.bring(Frame(quote(2)))
    assert not line.intake.take(quote(3), 1)
    assert (line.rest, line.ring.numbers()) == ([quote(2)], [1])


def test_without_a_direct_path_everything_is_left(line: Line) -> None:
    intake, left = Intake(0, None, lambda: None), list[WSFrame]()
    intake.is_open = True
    on_ws_frame = intake.before(lambda transport, frame: left.append(frame), lambda transport, error: None)
    frame = cast(WSFrame, Frame(quote(1)))
    on_ws_frame(cast(WSTransport, None), frame)
    assert left == [frame]
    assert not intake.take(quote(1), 1)


def test_nothing_is_taken_while_the_publisher_lets_nothing_through(line: Line) -> None:
    line.ring.path.enabled = False
    line.bring(Frame(quote(1)))
    line.ring.path.enabled = True
    line.bring(Frame(quote(2)))
    assert (line.rest, line.ring.numbers()) == ([quote(1)], [2])


def test_full_ring_refuses_and_the_publisher_is_told(line: Line) -> None:
    line.bring(*(Frame(quote(number)) for number in range(1, SLOTS + 2)))
    assert line.told == ["first data", "refused"]
    assert line.ring.emit.refused == 1
    assert line.rest == []


def test_publisher_is_told_when_it_must_save(line: Line) -> None:
    line.ring.path.save_at = 2
    line.bring(Frame(quote(1)))
    assert line.told == ["first data"]
    line.bring(Frame(quote(2)))
    assert line.told == ["first data", "save"]


def test_exception_on_the_way_is_handed_over_and_raised() -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    line = Line(on_first_data=fail)
    with pytest.raises(RuntimeError, match="a bug"):
        line.bring(Frame(quote(1)))
    assert [str(error) for error in line.errors] == ["a bug"]
    assert line.rest == []


def test_all_that_one_read_brings_has_one_time_of_receipt(line: Line) -> None:
    before = time.time_ns()
    line.bring(Frame(quote(1), last_in_buffer=0), Frame(b"not taken", last_in_buffer=0))
    heard = line.intake.hear()
    line.bring(Frame(quote(2), last_in_buffer=1), Frame(quote(3), last_in_buffer=1))
    (_, first), (_, second), (_, third) = line.ring.published()
    assert before <= first == heard == second < third <= time.time_ns()


def test_read_that_ends_with_a_message_not_taken_is_ended_by_whoever_handles_it(line: Line) -> None:
    first = line.intake.hear()
    assert line.intake.hear() == first
    line.intake.end_read()
    assert line.intake.hear() > first


def test_first_data_is_told_once_and_the_last_remembered(line: Line) -> None:
    intake = line.intake
    before = time.monotonic_ns()
    line.bring(Frame(b"an ack"))
    intake.hear()
    intake.end_read()
    heard = intake.last_heard_ns
    assert before <= heard <= time.monotonic_ns()
    assert (intake.first_data_ns, intake.last_data_ns, line.told) == (0, 0, [])
    line.bring(Frame(quote(1)))
    first = intake.last_data_ns
    assert heard < first == intake.first_data_ns == intake.last_heard_ns
    intake.hear()
    intake.note_data()
    assert intake.first_data_ns == first < intake.last_data_ns == intake.last_heard_ns
    assert line.told == ["first data"]


def test_listener_is_freed_without_the_garbage_collector() -> None:
    class Listener:
        def __init__(self, intake: Intake) -> None:
            self.intake = intake
            self.on_ws_frame = intake.before(self.rest, self.fail)

        def rest(self, transport: WSTransport, frame: WSFrame) -> None: ...

        def fail(self, transport: WSTransport, error: BaseException) -> None: ...

    listener = Listener(Intake(0, None, lambda: None))
    freed = weakref.ref(listener)
    gc.disable()
    try:
        listener.intake.release()
        listener.on_ws_frame(cast(WSTransport, None), cast(WSFrame, Frame(b"late")))
        del listener
        assert freed() is None
    finally:
        gc.enable()
