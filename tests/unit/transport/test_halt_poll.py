"""When polling before sleep pays off, and when it rests."""

from __future__ import annotations

from iovirt_dist.transport.halt_poll import (
    FIRST_NS,
    LEAST_REST_NS,
    MOST_NS,
    STREAK_NS,
    TAKEN_NS,
    HaltPoll,
)

LOOK_NS = 1000


class Bench:
    """A thread with one pump: each look takes a microsecond of virtual time.

    Attributes:
        now_ns: Virtual time.
        away_ns: How long others run when the CPU is offered to them.
        due_ns: When messages come.
        drained_ns: When they were handed over.
        looks: Looks that found nothing.
    """

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.away_ns = 0
        self.due_ns: list[int] = []
        self.drained_ns: list[int] = []
        self.looks = 0
        self.halt_poll = HaltPoll(lambda: self.now_ns, self.offer)
        self.halt_poll.join(self)

    def offer(self) -> None:
        """Others run."""
        self.now_ns += self.away_ns

    def drain_pending(self) -> bool:
        """Hand over what is due."""
        self.now_ns += LOOK_NS
        if self.due_ns and self.due_ns[0] <= self.now_ns:
            self.drained_ns.append(self.due_ns.pop(0))
            return True
        self.looks += 1
        return False

    def sleep(self, duration_ns: int) -> None:
        """Sleep, be woken, poll."""
        self.now_ns += duration_ns
        self.halt_poll.woken()
        self.halt_poll.poll()


def test_thread_that_slept_long_does_not_poll() -> None:
    """An idle process costs nothing."""
    bench = Bench()

    bench.sleep(MOST_NS + 1)

    assert (bench.halt_poll.window_ns, bench.looks) == (0, 0)


def test_window_grows_while_sleeps_are_short_up_to_its_bound() -> None:
    """And is gone after a long one."""
    bench = Bench()
    windows = []
    for duration_ns in (FIRST_NS, FIRST_NS, FIRST_NS, FIRST_NS, MOST_NS + 1):
        bench.sleep(duration_ns)
        windows.append(bench.halt_poll.window_ns)

    assert windows == [FIRST_NS, 2 * FIRST_NS, MOST_NS, MOST_NS, 0]


def test_poll_hands_over_what_comes_within_the_window_and_goes_on() -> None:
    """Each message begins a new window; then the thread sleeps."""
    bench = Bench()
    start_ns = bench.now_ns
    bench.due_ns = [start_ns + 10_000 + n * (FIRST_NS - 5000) for n in range(1, 6)]
    expected = list(bench.due_ns)

    bench.sleep(10_000)

    assert bench.drained_ns == expected
    assert FIRST_NS <= bench.now_ns - expected[-1] < FIRST_NS + 3 * LOOK_NS


def test_loop_gets_its_turn_in_a_long_streak() -> None:
    """Messages without end do not keep timers waiting."""
    bench = Bench()
    bench.due_ns = [0] * 100_000
    start_ns = bench.now_ns

    bench.sleep(1000)

    assert STREAK_NS <= bench.now_ns - start_ns < STREAK_NS + 10 * LOOK_NS
    assert bench.due_ns


def test_poll_rests_when_somebody_takes_the_cpu_longer_each_time() -> None:
    """Where others wait for the CPU, polling is in the way."""
    bench = Bench()
    bench.away_ns = TAKEN_NS + 1
    looks = []
    for rest_ns in (0, LEAST_REST_NS, LEAST_REST_NS, LEAST_REST_NS):
        bench.now_ns += rest_ns
        bench.halt_poll.poll()  # nothing is to be learned from the rest
        bench.sleep(1000)
        looks.append(bench.looks)

    assert looks == [1, 2, 2, 3]


def test_rest_is_short_again_once_polling_pays_off() -> None:
    """A stray interruption does not end it."""
    bench = Bench()
    bench.away_ns = TAKEN_NS + 1
    for _ in range(4):
        bench.sleep(1000)
        bench.now_ns += 8 * LEAST_REST_NS
        bench.halt_poll.poll()
    bench.away_ns = 0
    bench.due_ns = [0] * 10
    bench.now_ns += 16 * LEAST_REST_NS
    bench.halt_poll.poll()
    bench.sleep(1000)
    bench.away_ns = TAKEN_NS + 1
    bench.sleep(1000)
    rested = bench.looks

    bench.away_ns = 0
    bench.now_ns += LEAST_REST_NS
    bench.halt_poll.poll()
    bench.sleep(1000)

    assert bench.looks > rested


def test_pump_that_left_is_not_asked() -> None:
    """It may be closed."""
    bench = Bench()
    bench.halt_poll.leave(bench)

    bench.sleep(1000)

    assert bench.looks == 0
