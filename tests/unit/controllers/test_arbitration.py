"""Whose commands come next: bursts, weights, costs, and what idleness and debts count."""

from __future__ import annotations

from collections import Counter

import pytest

from iovirt_dist.controllers.arbitration import COMMAND_COST, Arbiter
from iovirt_dist.controllers.peer_queues import OutstandingCommand, PeerQueues
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode

BURST = 4


def arbiter(**weights: int) -> tuple[Arbiter, dict[str, PeerQueues]]:
    """An arbiter and a pair for each of these peers, all idle."""
    made = Arbiter(BURST)
    made.set_weights(weights)
    return made, {peer: PeerQueues(peer) for peer in weights}


def offer(made: Arbiter, queues: PeerQueues, count: int, length: int = 4096) -> None:
    """Queue commands of one pair."""
    queues.submission.extend(OutstandingCommand(b"", Opcode.READ, 0, 0, length, b"", queues) for _ in range(count))
    if not queues.scheduled:
        made.enter(queues)


def owners(taken: list[OutstandingCommand]) -> str:
    """Whose they are, in order."""
    return "".join(command.queues.peer for command in taken)


def test_equal_weights_take_turns_by_bursts() -> None:
    """Plain round robin."""
    made, pairs = arbiter(a=1, b=1, c=1)
    for queues in pairs.values():
        offer(made, queues, 2 * BURST)

    assert owners(made.take(100)) == ("a" * BURST + "b" * BURST + "c" * BURST) * 2


def test_weights_of_one_and_three_give_one_and_three_of_four() -> None:
    """Within a burst, at every point."""
    made, pairs = arbiter(a=1, b=3)
    for queues in pairs.values():
        offer(made, queues, 400)

    counts = [Counter(owners(made.take(16))) for _ in range(20)]

    assert all(abs(count["a"] - 4) <= BURST for count in counts)
    assert sum(count["a"] for count in counts) == pytest.approx(80, abs=BURST)


def test_weights_hold_when_the_device_takes_one_at_a_time() -> None:
    """A turn that is cut short by the room costs only what it had."""
    made, pairs = arbiter(a=1, b=3)
    for queues in pairs.values():
        offer(made, queues, 100)

    taken = [owners(made.take(1)) for _ in range(80)]

    assert Counter(taken) == {"a": 20, "b": 60}


def test_large_commands_do_not_win() -> None:
    """Who sends sixteen times as much a command gets nearly the same bytes, and many fewer commands."""
    made, pairs = arbiter(a=1, b=1)
    offer(made, pairs["a"], 1000, length=65536)
    offer(made, pairs["b"], 10_000, length=4096)

    taken = Counter(owners(made.take(1700)))

    cost = {"a": taken["a"] * (COMMAND_COST + 65536), "b": taken["b"] * (COMMAND_COST + 4096)}
    assert abs(cost["a"] - cost["b"]) <= 2 * (COMMAND_COST + 65536)


def test_turn_of_large_commands_is_one_command() -> None:
    """Small ones wait for one of them only, not for a burst."""
    made, pairs = arbiter(a=1, b=1)
    offer(made, pairs["a"], 8, length=1 << 20)
    offer(made, pairs["b"], 8, length=512)

    assert owners(made.take(9)) == "a" + "b" * 8


def test_pair_alone_takes_all_the_room_there_is() -> None:
    """No device idles for a weight."""
    made, pairs = arbiter(a=1, b=255)
    offer(made, pairs["a"], 50)

    assert len(made.take(30)) == 30
    assert len(made.take(30)) == 20


def test_idle_pair_has_saved_nothing_up() -> None:
    """It enters where the others are, however long it was away."""
    made, pairs = arbiter(a=1, b=1)
    offer(made, pairs["a"], 1000)
    made.take(500)

    offer(made, pairs["b"], 100)

    assert Counter(owners(made.take(40))) == pytest.approx({"a": 20, "b": 20}, abs=BURST)


def test_pair_that_comes_and_goes_still_owes_what_it_overdrew() -> None:
    """One that has a single large command at a time is not served before everybody else each time."""
    made, pairs = arbiter(a=1, b=1)
    offer(made, pairs["b"], 10_000)

    taken = []
    for _ in range(4000):
        if not pairs["a"].submission:
            offer(made, pairs["a"], 1, length=1 << 20)
        taken += made.take(1)

    counts = Counter(owners(taken))
    a_cost, b_cost = counts["a"] * (COMMAND_COST + (1 << 20)), counts["b"] * (COMMAND_COST + 4096)
    assert abs(a_cost - b_cost) <= 2 * (COMMAND_COST + (1 << 20))


def test_debts_are_forgotten_when_nobody_waits_any_more() -> None:
    """What was taken while others were served too does not matter in the next busy time."""
    made, pairs = arbiter(a=1, b=1)
    offer(made, pairs["b"], 1)
    offer(made, pairs["a"], 1, length=4 << 20)
    made.take(10)

    offer(made, pairs["a"], 8)
    offer(made, pairs["b"], 8)

    assert owners(made.take(8)) == "a" * BURST + "b" * BURST


def test_length_that_no_command_may_have_costs_no_more_than_the_most() -> None:
    """A number that somebody made up does not keep the pair from its next turn for ever."""
    made, pairs = arbiter(a=1, b=1)
    offer(made, pairs["a"], 2, length=(1 << 64) - 1)
    offer(made, pairs["b"], 2000)

    taken = owners(made.take(1 + 2 * MAX_DATA_BYTES // (COMMAND_COST + 4096)))

    assert taken.count("a") == 2


def test_take_stops_once_the_bytes_are_used_up() -> None:
    """The command that exceeds them is the last one, alone or not."""
    made, pairs = arbiter(a=1, b=1)
    offer(made, pairs["a"], 4, length=1024)
    alone = made.take(10, 1500)
    offer(made, pairs["b"], 4, length=1024)

    assert owners(alone) == "aa"
    assert len(made.take(10, 2500)) == 3


def test_changed_weights_hold_for_pairs_that_wait() -> None:
    """From the next turn on, whether or not a pair was idle since."""
    made, pairs = arbiter(a=1, b=1)
    for queues in pairs.values():
        offer(made, queues, 400)
    made.take(40)

    made.set_weights({"b": 4})

    assert Counter(owners(made.take(100)))["b"] == pytest.approx(80, abs=BURST)
    assert (made.weight("a"), made.weight("b")) == (1, 4)


@pytest.mark.parametrize(("given", "held"), [(0, 1), (-5, 1), (300, 255)])
def test_weight_out_of_range_is_the_nearest_in_it(given: int, held: int) -> None:
    """No weight divides by zero or counts without end."""
    made = Arbiter(BURST)

    made.set_weights({"a": given})

    assert made.weight("a") == held
