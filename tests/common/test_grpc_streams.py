"""Requests and answers of a stream, matched by id."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import service_pb2 as pb

from tests.support.grpc_calls import floats, request_message, response_message
from understudy.common.grpc_messages import Message, framed
from understudy.common.grpc_streams import MAX_OPEN, QUIET_NS, StreamCall, StreamCalls

ROOM = 10**6
A = ("a", "FP32", floats(1.0))


def one(message: Any) -> Message:
    content = message.SerializeToString()
    return Message(False, content, len(content) + 5)


class Driven:
    """A stream whose clock moves by one with each message."""

    def __init__(self, limit: int = 10_000, room: int = ROOM) -> None:
        self.calls = StreamCalls(limit, room)
        self.now = 0

    def ask(self, id_: str) -> list[StreamCall]:
        self.now += 1
        return self.calls.request(one(request_message(A, id_=id_)), b"", self.now)

    def answer(self, id_: str, final: bool | None = None, error: str = "") -> list[StreamCall]:
        self.now += 1
        answer: Any = response_message(("p", "FP32", floats(1.0)), id_=id_)
        if final is not None:
            answer.parameters["triton_final_response"].bool_param = final
        wrapped = pb.ModelStreamInferResponse(infer_response=answer, error_message=error)
        return self.calls.answer(one(wrapped), b"", self.now)


def test_answers_in_any_order_meet_their_requests() -> None:
    stream = Driven()
    assert stream.ask("1") + stream.ask("2") == []
    (second,) = stream.answer("2", final=True)
    assert stream.answer("1", final=False) == []
    (first,) = stream.answer("1", final=True)
    assert (second.id, second.started, second.first, second.ended) == ("2", 2, 3, 3)
    assert (first.id, first.started, first.first, first.ended) == ("1", 1, 4, 5)
    assert first.answers == 2
    sent = framed(one(request_message(A, id_="1")).content)
    assert (first.request, first.request_size) == (sent, len(sent))
    assert first.response is not None
    assert len(first.response) == first.response_size
    assert (stream.calls.end(), stream.calls.unmatched, stream.calls.kept) == ([], 0, 0)


def test_an_answer_that_does_not_say_that_it_is_the_last() -> None:
    stream = Driven()
    stream.ask("1")
    stream.answer("1")
    assert stream.calls.quiet(stream.now + QUIET_NS - 1) == []
    stream.ask("2")
    (first,) = stream.calls.quiet(2 + QUIET_NS)
    assert (first.id, first.ended) == ("1", 2)
    stream.answer("2", final=False)
    assert stream.calls.quiet(10 * QUIET_NS) == []
    # The next request of that id ends it, and so does the end of the stream.
    (second,) = stream.ask("2")
    assert (second.id, second.answers) == ("2", 1)
    (third,) = stream.calls.end()
    assert (third.answers, third.response, third.ended) == (0, None, 0)


def test_errors_count_also_without_an_id() -> None:
    stream = Driven()
    stream.ask("1")
    (failed,) = stream.answer("1", error="boom")
    assert (failed.error, failed.started) == ("boom", 1)
    stream.ask("2")
    (failed,) = stream.answer("", error="bang")
    assert (failed.id, failed.error) == ("2", "bang")
    stream.ask("3")
    stream.ask("4")
    (failed,) = stream.answer("", error="which?")
    assert (failed.request, failed.error, failed.answers) == (None, "which?", 1)
    assert stream.calls.unmatched == 0


def test_requests_without_ids_are_matched_while_one_is_open() -> None:
    stream = Driven()
    for _ in range(3):
        stream.ask("")
        assert len(stream.answer("", final=True)) == 1
    stream.ask("")
    stream.ask("")
    assert stream.calls.unmatched == 2
    assert stream.answer("", final=True) == []
    # From here on nothing tells which answer belongs to which request; those with ids still match.
    stream.ask("")
    stream.ask("9")
    assert stream.answer("", final=True) == []
    assert stream.calls.unmatched == 5
    assert [call.id for call in stream.answer("9", final=True)] == ["9"]
    assert stream.calls.kept == 0


def test_what_is_kept_is_bounded() -> None:
    stream = Driven(limit=300)
    stream.ask("1")
    for _ in range(20):
        stream.answer("1", final=False)
    (call,) = stream.answer("1", final=True)
    assert (call.answers, call.response, stream.calls.kept) == (21, None, 0)
    assert call.request is not None
    stream = Driven(room=200)
    for number in range(20):
        stream.ask(str(number))
    assert stream.calls.kept <= 200
    assert stream.answer("19", final=True)[0].request is None
    stream = Driven()
    stream.ask("first")
    stream.answer("first", final=False)
    ended = [call for number in range(MAX_OPEN + 5) for call in stream.ask(str(number))]
    assert [call.id for call in ended] == ["first"]
    assert stream.calls.unmatched == 5
    assert len(stream.calls.end()) == MAX_OPEN
    assert stream.calls.kept == 0
