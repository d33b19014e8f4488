"""Queue pairs: bounds, arbitration, exactly once."""

from __future__ import annotations

from iovirt_dist.controllers.base import (
    CONTENDED_DEPTH,
    MAX_CLOSED_PAIRS,
    CommandsSubmitted,
    CompleteCommands,
    PairShare,
    QueuePairClosed,
    QueuePairOpened,
    QueuePairs,
)
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES
from iovirt_dist.wire.commands import MAX_BATCH, Command, Completion, Opcode, Status


def _id(sequence: int) -> bytes:
    return RequestId(1, 0, sequence).pack()


def _reads(*sequences: int, length: int = 512) -> list[Command]:
    return [Command(_id(sequence), Opcode.READ, 0, 0, length) for sequence in sequences]


def _write(sequence: int) -> Command:
    return Command(_id(sequence), Opcode.WRITE, 0, 0, 512)


def _pairs(*peers: str, queue_credits: int = 8, burst: int = 2) -> QueuePairs:
    """Queue pairs 1, 2, ... opened by these peers."""
    pairs = QueuePairs(queue_credits, burst)
    for number, peer in enumerate(peers, 1):
        pairs.opened(QueuePairOpened(number, peer, resumed=False))
    return pairs


def _sequences(pairs: QueuePairs, room: int = 100, room_bytes: int = 1 << 30) -> list[int]:
    return [RequestId.unpack(command.id).sequence for command in pairs.take(room, room_bytes)]


def test_take_with_two_busy_pairs_alternates_by_bursts() -> None:
    """Two commands of each pair in turn, until one runs dry."""
    pairs = _pairs("a", "b", burst=2)
    pairs.submit(CommandsSubmitted(1, _reads(1, 2, 3, 4, 5), []))
    pairs.submit(CommandsSubmitted(2, _reads(11, 12, 13), []))

    assert _sequences(pairs) == [1, 2, 11, 12, 3, 4, 13, 5]


def test_take_in_small_rooms_gives_every_pair_its_turn() -> None:
    """A pair with a long queue does not keep the other waiting when room comes by ones."""
    pairs = _pairs("a", "b", burst=4)
    pairs.submit(CommandsSubmitted(1, _reads(1, 2, 3), []))
    pairs.submit(CommandsSubmitted(2, _reads(11, 12), []))

    assert [_sequences(pairs, room=1) for _ in range(6)] == [[1], [11], [2], [12], [3], []]


def test_take_stops_once_the_bytes_are_used_up() -> None:
    """The command that crosses the bound is the last one, the rest stays queued."""
    pairs = _pairs("a", burst=8)
    pairs.submit(CommandsSubmitted(1, _reads(1, 2, 3, length=1024), []))

    assert _sequences(pairs, room_bytes=1500) == [1, 2]
    assert _sequences(pairs) == [3]


def test_submit_beyond_credits_completes_with_queue_full() -> None:
    """The queue is bounded; what is refused is told, and may be submitted again later."""
    pairs = _pairs("a", queue_credits=2)

    pairs.submit(CommandsSubmitted(1, [*_reads(1), _write(2), _write(3)], [b"2", b"3"]))
    refused = pairs.collect()
    first, second = pairs.take(10)
    pairs.complete(first, Status.OK, bytes(512))
    pairs.complete(second, Status.OK)
    pairs.collect()
    pairs.submit(CommandsSubmitted(1, [_write(3)], [b"3"]))

    assert refused == [CompleteCommands(1, [Completion(_id(3), Status.QUEUE_FULL)], [])]
    assert _sequences(pairs) == [3]
    assert pairs.counts.queue_full == 1


def test_submit_pairs_payload_with_the_commands_that_carry_data() -> None:
    """READ takes no payload buffer, WRITE takes the next."""
    pairs = _pairs("a")

    pairs.submit(CommandsSubmitted(1, [_write(1), *_reads(2), _write(3)], [b"one", b"three"]))

    assert [bytes(request.data) for request in pairs.take(9)] == [b"one", b"", b"three"]


def test_collect_after_completions_gives_one_batch_in_order() -> None:
    """Completions of one event leave together, payload only for those with data."""
    pairs = _pairs("a")
    pairs.submit(CommandsSubmitted(1, [*_reads(1), _write(2)], [bytes(512)]))
    read, write = pairs.take(9)

    pairs.complete(write, Status.OK)
    pairs.complete(read, Status.OK, b"r" * 512, value=7)

    assert pairs.collect() == [
        CompleteCommands(1, [Completion(_id(2), Status.OK), Completion(_id(1), Status.OK, 512, 7)], [b"r" * 512])
    ]
    assert pairs.collect() == []


def test_plain_completions_of_several_pairs_go_to_each_in_order() -> None:
    """One batch for each, whoever lies between; one that was abandoned gets none."""
    pairs = _pairs("a", "b", "c", burst=1)
    for pair, sequences in ((1, (1, 2)), (2, (11, 12)), (3, (21,))):
        flushes = [Command(_id(sequence), Opcode.FLUSH) for sequence in sequences]
        pairs.submit(CommandsSubmitted(pair, flushes, []))
    taken = pairs.take(10)

    pairs.opened(QueuePairOpened(3, "c", resumed=False))
    pairs.complete_plain(taken)

    assert pairs.collect() == [
        CompleteCommands(1, [Completion(_id(1), Status.OK), Completion(_id(2), Status.OK)], []),
        CompleteCommands(2, [Completion(_id(11), Status.OK), Completion(_id(12), Status.OK)], []),
    ]
    assert pairs.counts.completions == 4


def test_submit_of_an_id_in_flight_is_ignored() -> None:
    """A resubmitted request that is still being done is not done twice, and completes once."""
    pairs = _pairs("a")
    pairs.submit(CommandsSubmitted(1, [_write(1)], [b"x"]))
    (request,) = pairs.take(9)

    pairs.submit(CommandsSubmitted(1, [_write(1)], [b"x"]))
    pairs.complete(request, Status.OK)

    assert pairs.take(9) == []
    assert pairs.collect() == [CompleteCommands(1, [Completion(_id(1), Status.OK)], [])]
    assert pairs.counts.repeated_in_flight == 1


def test_submit_of_a_write_that_is_done_repeats_its_completion() -> None:
    """The remembered outcome is sent again, an error as well as a success."""
    pairs = _pairs("a")
    pairs.submit(CommandsSubmitted(1, [_write(1), _write(2)], [b"x", b"y"]))
    first, second = pairs.take(9)
    pairs.complete(first, Status.OK)
    pairs.complete(second, Status.MEDIUM_ERROR)
    sent = pairs.collect()

    pairs.submit(CommandsSubmitted(1, [_write(1), _write(2)], [b"x", b"y"]))

    assert pairs.collect() == sent
    assert pairs.take(9) == []


def test_submit_of_a_read_that_is_done_does_it_again() -> None:
    """Reads change nothing, so their data is not kept."""
    pairs = _pairs("a")
    pairs.submit(CommandsSubmitted(1, _reads(1), []))
    pairs.complete(pairs.take(9)[0], Status.OK, bytes(512))

    pairs.submit(CommandsSubmitted(1, _reads(1), []))

    assert _sequences(pairs) == [1]


def test_remembered_completions_are_bounded_by_the_credits() -> None:
    """The last `credits` outcomes are known, an older one is not."""
    pairs = _pairs("a", queue_credits=2)
    for sequence in (1, 2, 3):
        pairs.submit(CommandsSubmitted(1, [_write(sequence)], [b"x"]))
        pairs.complete(pairs.take(9)[0], Status.OK)

    pairs.submit(CommandsSubmitted(1, [_write(2), _write(3), _write(1)], [b"x"] * 3))

    assert _sequences(pairs) == [1]
    assert pairs.counts.repeated_done == 2


def test_completion_of_a_closed_pair_waits_until_its_peer_is_back() -> None:
    """A session that is resumed under a new number gets what fell due meanwhile."""
    pairs = _pairs("a")
    pairs.submit(CommandsSubmitted(1, _reads(1), []))
    (request,) = pairs.take(9)

    pairs.closed(QueuePairClosed(1))
    pairs.complete(request, Status.OK, b"d" * 512)
    while_closed = pairs.collect()
    pairs.opened(QueuePairOpened(5, "a", resumed=True))

    assert while_closed == []
    assert pairs.collect() == [CompleteCommands(5, [Completion(_id(1), Status.OK, 512)], [b"d" * 512])]


def test_peer_of_a_new_epoch_starts_afresh() -> None:
    """Queued commands of the old life are dropped, running ones end into nothing, its ids mean nothing."""
    pairs = _pairs("a")
    pairs.submit(CommandsSubmitted(1, [_write(1), _write(2), _write(3)], [b"x"] * 3))
    done, running = pairs.take(2)
    pairs.complete(done, Status.OK)
    pairs.collect()

    pairs.opened(QueuePairOpened(2, "a", resumed=False))
    pairs.complete(running, Status.OK)
    pairs.submit(CommandsSubmitted(2, [_write(1)], [b"new"]))

    assert [bytes(request.data) for request in pairs.take(9)] == [b"new"]
    assert pairs.collect() == []


def test_submit_to_a_pair_that_is_not_open_is_counted_and_ignored() -> None:
    """Commands of nobody are not done."""
    pairs = _pairs("a")

    pairs.submit(CommandsSubmitted(9, _reads(1, 2), []))

    assert pairs.take(9) == []
    assert pairs.counts.strays == 2


def test_opened_with_a_number_in_use_closes_the_pair_that_had_it() -> None:
    """A number names one peer at a time."""
    pairs = _pairs("a")
    pairs.opened(QueuePairOpened(1, "b", resumed=False))
    pairs.submit(CommandsSubmitted(1, _reads(1), []))

    assert [command.queues.peer for command in pairs.take(9)] == ["b"]
    assert pairs.remembers("a")


def test_closed_pairs_beyond_the_bound_are_forgotten_oldest_first() -> None:
    """State of peers that never come back is bounded."""
    pairs = QueuePairs(8, 2)
    for number in range(MAX_CLOSED_PAIRS + 1):
        pairs.opened(QueuePairOpened(number, f"peer{number}", resumed=False))
    for number in range(MAX_CLOSED_PAIRS + 1):
        pairs.closed(QueuePairClosed(number))

    assert not pairs.remembers("peer0")
    assert pairs.remembers("peer1")


def test_collect_of_more_than_the_wire_takes_splits_the_batch() -> None:
    """A batch has at most 1024 entries and 16 MiB."""
    pairs = _pairs("a", queue_credits=2000)
    pairs.submit(CommandsSubmitted(1, _reads(*range(1, MAX_BATCH + 4)), []))
    requests = pairs.take(2000)
    large = bytes(MAX_PAYLOAD_BYTES // 2 + 1)
    for request in requests[:2]:
        pairs.complete(request, Status.OK, large)
    for request in requests[2:]:
        pairs.complete(request, Status.OK)

    batches = pairs.collect()

    assert [len(batch.completions) for batch in batches] == [1, MAX_BATCH, 2]
    assert [len(batch.payload) for batch in batches] == [1, 1, 0]


def test_shares_tell_what_each_peer_has_had() -> None:
    """Weight, state, what was taken, what waits, what is in flight."""
    pairs = _pairs("a", "b")
    pairs.set_weights({"b": 3})
    pairs.submit(CommandsSubmitted(1, _reads(1, 2, 3), []))
    pairs.take(2)
    pairs.closed(QueuePairClosed(2))

    assert pairs.shares() == {"a": PairShare(1, True, 2, 1024, 1, 3), "b": PairShare(3, False, 0, 0, 0, 0)}


def test_weights_of_peers_decide_their_shares() -> None:
    """One to three."""
    pairs = QueuePairs(100, 2, {"b": 3})
    for number, peer in enumerate("ab", 1):
        pairs.opened(QueuePairOpened(number, peer, resumed=False))
        pairs.submit(CommandsSubmitted(number, _reads(*range(1, 101)), []))

    peers = [command.queues.peer for command in pairs.take(80)]

    assert abs(peers.count("a") - 20) <= 2


def test_peer_of_a_new_epoch_owes_what_its_last_life_overdrew() -> None:
    """Nobody pays a debt by coming back under a new epoch."""
    pairs = _pairs("a", "b")
    pairs.submit(CommandsSubmitted(1, _reads(1, length=1 << 20), []))
    pairs.submit(CommandsSubmitted(2, _reads(*range(11, 19)), []))
    pairs.take(1)

    pairs.opened(QueuePairOpened(3, "a", resumed=False))
    pairs.submit(CommandsSubmitted(3, _reads(1), []))

    assert _sequences(pairs) == [*range(11, 19), 1]


def test_room_is_small_only_while_peers_with_weights_compete() -> None:
    """Everything that is in the device counts, what waits does not."""
    pairs = _pairs("a", "b", queue_credits=100)
    rooms = [pairs.room(64)]
    pairs.set_weights({"b": 3})
    pairs.submit(CommandsSubmitted(1, _reads(*range(40)), []))
    rooms.append(pairs.room(64))
    pairs.submit(CommandsSubmitted(2, _reads(*range(50, 90)), []))
    rooms += [pairs.room(64), pairs.room(4)]
    pairs.take(20)
    rooms.append(pairs.room(64))
    pairs.take(20)
    rooms.append(pairs.room(64))

    assert rooms == [64, 64, 39, 4, 19, 0]  # 3 of 4 parts of 53, of which the second may have 40


def test_room_is_for_a_batch_however_little_somebody_has_in_flight() -> None:
    """One who asks for little does not hold the device up."""
    pairs = _pairs("a", "b", queue_credits=100)
    pairs.set_weights({"b": 255})
    pairs.submit(CommandsSubmitted(1, _reads(*range(64)), []))
    pairs.submit(CommandsSubmitted(2, _reads(100), []))

    assert pairs.room(64) == CONTENDED_DEPTH


def test_pairs_are_paced_where_weights_differ_and_several_are_open() -> None:
    """Whoever is gone does not matter."""
    pairs = _pairs("a", "b")
    paced = [pairs.paced]
    pairs.set_weights({"a": 2, "b": 2})
    paced.append(pairs.paced)
    pairs.set_weights({"b": 2})
    paced.append(pairs.paced)
    pairs.closed(QueuePairClosed(1))
    paced.append(pairs.paced)
    pairs.opened(QueuePairOpened(3, "a", resumed=True))
    paced.append(pairs.paced)

    assert paced == [False, False, True, False, True]
