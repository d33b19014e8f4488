"""The record of messages."""

from __future__ import annotations

from iovirt_dist.ids import RequestId
from iovirt_dist.testing.trace import MessageTrace
from iovirt_dist.wire.codec import encode
from iovirt_dist.wire.commands import Command, Opcode, pack_commands
from iovirt_dist.wire.messages import Ping, Submit, Trap, TrapKind, TrapReply

_TRAP = Trap(1, TrapKind.PORT_OUT, 0x1F7, 1, 1, 0x20, 0)


def test_trace_marks_the_next_message_of_a_session_as_taken() -> None:
    """A duplicate and a message behind a gap arrive, but the layers above do not get them."""
    trace = MessageTrace()

    for sequence in (1, 1, 3, 2, 3):
        trace.record(0, "guest", "hypervisor", encode(7, 9, sequence, 0, _TRAP))

    assert [crossing.taken for crossing in trace] == [True, False, False, True, True]


def test_trace_counts_anew_in_a_new_session() -> None:
    """Another pair of lives starts at sequence number 1."""
    trace = MessageTrace()
    trace.record(0, "guest", "hypervisor", encode(7, 9, 1, 0, _TRAP))

    again = trace.record(0, "guest", "hypervisor", encode(7, 10, 1, 0, _TRAP))

    assert again.taken


def test_trace_select_filters_by_type_and_ends() -> None:
    """What does not fit is left out; order stays."""
    trace = MessageTrace()
    trace.record(1, "guest", "hypervisor", encode(7, 9, 1, 0, _TRAP))
    trace.record(2, "hypervisor", "guest", encode(9, 7, 1, 1, TrapReply(1, 0)))
    trace.record(3, "hypervisor", "guest", encode(9, 7, 0, 1, Ping(5)))

    assert [crossing.at_ns for crossing in trace.select(sender="hypervisor")] == [2, 3]
    assert [crossing.at_ns for crossing in trace.select(TrapReply, Trap)] == [1, 2]
    assert [crossing.at_ns for crossing in trace.select(taken=False)] == [3]


def test_trace_is_bounded_and_says_what_it_dropped() -> None:
    """The oldest crossings make room."""
    trace = MessageTrace(capacity=2)

    for sequence in (1, 2, 3):
        trace.record(sequence, "guest", "hypervisor", encode(7, 9, sequence, 0, _TRAP))

    assert [crossing.sequence for crossing in trace] == [2, 3]
    assert trace.dropped == 1


def test_trace_keeps_garbage_as_no_message() -> None:
    """Bytes that decode to nothing are on record too."""
    trace = MessageTrace()

    crossing = trace.record(0, "?", "block", [b"\xff"])

    assert crossing.body is None
    assert str(trace).endswith("no message")


def test_trace_text_names_commands_and_registers() -> None:
    """A line says who, whom and what, in the field's words."""
    trace = MessageTrace()
    batch = pack_commands([Command(RequestId(3, 0, 1).pack(), Opcode.READ, 0, 2560, 512)])

    trap = trace.record(1_000_000, "guest", "hypervisor", encode(7, 9, 1, 0, _TRAP))
    submit = trace.record(2_000_000, "hypervisor", "block", encode(9, 4, 1, 0, Submit(batch)))

    assert str(trap).split(maxsplit=5)[5] == "Trap 1 PORT_OUT 0x1f7 width 1 value 0x20 privilege 0"
    assert submit.what() == "Submit READ 3.0.1 at 2560 length 512"
