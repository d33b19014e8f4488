"""The in-process network in virtual time."""

from __future__ import annotations

from iovirt_dist.faults.link import Cut, Faults
from iovirt_dist.transport.memory import MemoryDialler, MemoryListener, MemoryNetwork
from iovirt_dist.transport.port import ONLY_PEER


class Clock:
    """Virtual time that a test sets."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        """Now."""
        return self.now_ns


def joined(
    faults: Faults, seed: int = 1, capacity: int = 8192
) -> tuple[Clock, MemoryNetwork, MemoryListener, MemoryDialler]:
    """A network with one connection."""
    clock = Clock()
    network = MemoryNetwork(clock, seed, faults, capacity)
    return clock, network, network.listen("hv"), network.dial("hv", "alice")


def send_and_take(faults: Faults, count: int, seed: int = 1) -> list[int]:
    """Numbers that arrive of those sent 1 us apart."""
    clock, _, listener, dialler = joined(faults, seed)
    for number in range(count):
        clock.now_ns = number * 1000
        dialler.send(ONLY_PEER, [number.to_bytes(4, "big")])
    clock.now_ns += 1 << 40
    seen = []
    while (message := listener.receive()) is not None:
        seen.append(int.from_bytes(message[1][0], "big"))
    return seen


def test_delayed_message_arrives_when_its_time_has_come() -> None:
    """Not a nanosecond earlier, and the network says when."""
    clock, network, listener, dialler = joined(Faults(delay_ns=(500, 500)))
    dialler.send(ONLY_PEER, [b"x"])
    assert network.next_event_ns() == 500
    clock.now_ns = 499
    assert (network.advance(), listener.receive()) == (0, None)
    clock.now_ns = 500
    assert (network.advance(), network.next_event_ns()) == (1, None)
    assert listener.receive() is not None


def test_varying_delay_keeps_the_order() -> None:
    """As on one connection."""
    assert send_and_take(Faults(delay_ns=(0, 1_000_000)), 200) == list(range(200))


def test_loss_takes_about_its_share_and_keeps_the_order() -> None:
    """A fifth of a thousand, give or take."""
    seen = send_and_take(Faults(loss=0.2), 1000)
    assert 720 < len(seen) < 880
    assert seen == sorted(seen)


def test_duplication_doubles_about_its_share() -> None:
    """Every message arrives; some twice."""
    seen = send_and_take(Faults(duplicate=0.2), 1000)
    assert set(seen) == set(range(1000))
    assert 1120 < len(seen) < 1280


def test_reordering_changes_the_order_and_loses_nothing() -> None:
    """Some messages are overtaken."""
    seen = send_and_take(Faults(reorder=0.2, reorder_ns=50_000), 1000)
    assert seen != sorted(seen)
    assert sorted(seen) == list(range(1000))


def test_cut_loses_exactly_what_is_sent_in_it() -> None:
    """From its first instant to before its end."""
    assert send_and_take(Faults(cuts=(Cut(3000, 6000),)), 10) == [0, 1, 2, 6, 7, 8, 9]


def test_same_seed_gives_the_same_run_another_seed_another() -> None:
    """A failure can be shown again."""
    faults = Faults(delay_ns=(0, 10_000), loss=0.3, duplicate=0.3, reorder=0.3)
    assert send_and_take(faults, 200, seed=5) == send_and_take(faults, 200, seed=5)
    assert send_and_take(faults, 200, seed=5) != send_and_take(faults, 200, seed=6)


def test_faults_of_one_link_leave_the_others_alone() -> None:
    """One direction of one connection is broken, all else is well."""
    _, network, listener, alice = joined(Faults())
    bob = network.dial("hv", "bob")
    network.set_faults(Faults(loss=1.0), "hv", "alice")
    alice.send(ONLY_PEER, [b"a"])
    bob.send(ONLY_PEER, [b"b"])
    for _ in range(2):
        message = listener.receive()
        assert message is not None
        listener.send(message[0], [b"answer"])
    assert (alice.receive(), bob.receive()) == (None, (ONLY_PEER, [b"answer"]))
    assert network.lost == 1


def test_frames_under_way_to_a_closed_listener_are_lost() -> None:
    """A new listener at the address does not get what was sent to the old one."""
    clock, network, listener, dialler = joined(Faults(delay_ns=(500, 500)))
    dialler.send(ONLY_PEER, [b"old"])
    listener.close()
    again = network.listen("hv")
    dialler.send(ONLY_PEER, [b"new"])
    clock.now_ns = 1000
    message = again.receive()
    assert message is not None
    assert message[1] == [b"new"]
    assert (again.receive(), network.lost) == (None, 1)


def test_capacity_bounds_what_waits_for_a_listener() -> None:
    """Before the connection as well as after it."""
    network = MemoryNetwork(Clock(), capacity=3)
    dialler = network.dial("hv")
    assert [dialler.send(ONLY_PEER, [b"x"]) for _ in range(4)] == [True, True, True, False]
    network.listen("hv")
    assert not dialler.send(ONLY_PEER, [b"x"])


def test_sender_may_reuse_its_buffer() -> None:
    """Frames are copied when they are sent."""
    _, _, listener, dialler = joined(Faults())
    buffer = bytearray(b"one")
    dialler.send(ONLY_PEER, [buffer])
    buffer[:] = b"two"
    message = listener.receive()
    assert message is not None
    assert message[1] == [b"one"]
