"""Which peer may use which unit, while grants, lives and units change."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from iovirt_dist.controllers import grants as module
from iovirt_dist.controllers.base import CommandsSubmitted, QueuePairOpened, QueuePairs
from iovirt_dist.controllers.grants import UnitGrants
from iovirt_dist.wire.commands import Command, Completion, Opcode, Status

HERS, HIS = 4, 7
"""Numbers of two units."""


def id_of(number: int) -> bytes:
    """A request's id."""
    return number.to_bytes(16, "little")


def identify(number: int = 1) -> Command:
    """An IDENTIFY; its name is in the data."""
    return Command(id_of(number), Opcode.IDENTIFY, 0, 0, 4)


def read(unit: int, number: int = 2) -> Command:
    """A READ."""
    return Command(id_of(number), Opcode.READ, unit, 0, 512)


def write(unit: int, number: int = 3) -> Command:
    """A WRITE of data of its own."""
    return Command(id_of(number), Opcode.WRITE, unit, 0, 512)


def unknown(id_: bytes) -> bool:
    """No id is in use."""
    return False


def learned(grants: UnitGrants, peer: str, name: bytes, number: int, status: Status = Status.OK) -> bool:
    """Let a peer identify a unit; returns whether the device saw it, and answered with the number."""
    found = grants.sort(peer, [identify()], [name], unknown)
    if found.granted:
        grants.answered(peer, [Completion(id_of(1), status, 0, number)])
    return bool(found.granted)


def may_use(grants: UnitGrants, peer: str, unit: int) -> bool:
    """Whether a command for the unit gets to the device, by both ways of asking."""
    quickly = grants.admits(peer, [read(unit)], [])
    slowly = bool(grants.sort(peer, [read(unit)], [], unknown).granted)
    assert quickly is slowly
    return quickly


@pytest.fixture
def grants() -> UnitGrants:
    """Alice's hypervisor has unit hers, bob's has his; both have identified them."""
    grants = UnitGrants({"a": ["hers"], "b": ["his"]})
    for peer in ("a", "b"):
        grants.opened(peer, resumed=False)
    assert learned(grants, "a", b"hers", HERS)
    assert learned(grants, "b", b"his", HIS)
    return grants


def test_identified_units_are_their_owners_only(grants: UnitGrants) -> None:
    """Neither can use the other's number, nor one that nobody has identified."""
    assert [may_use(grants, "a", unit) for unit in (HERS, HIS, 0)] == [True, False, False]
    assert [may_use(grants, "b", unit) for unit in (HERS, HIS, 0)] == [False, True, False]


@pytest.mark.parametrize("name", [b"his", b"", b"nobody's", b"\xff\x00", b"hers\x00"])
def test_name_that_is_not_granted_is_not_identified(grants: UnitGrants, name: bytes) -> None:
    """The device does not even learn that it was asked."""
    assert not learned(grants, "a", name, HIS)
    assert not may_use(grants, "a", HIS)


def test_batch_is_taken_apart_with_its_data(grants: UnitGrants) -> None:
    """What is granted goes on in order, each command with its own data."""
    commands = [write(HIS, 10), read(HERS, 11), write(HERS, 12), identify(13), read(HIS, 14), identify(15)]
    found = grants.sort("a", commands, [b"stolen", b"mine", b"hers", b"his"], unknown)
    assert found.granted == [commands[1], commands[2], commands[3]]
    assert found.data == [b"mine", b"hers"]
    assert found.refused == [commands[0], commands[4], commands[5]]


def test_batch_with_identify_is_never_admitted_as_it_is(grants: UnitGrants) -> None:
    """IDENTIFY's unit means nothing, and its name must be looked at."""
    assert learned(grants, "a", b"hers", 0)
    assert grants.admits("a", [write(0)], [b""])
    assert not grants.admits("a", [write(0), identify()], [b"", b"his"])


def test_failed_identification_gives_nothing(grants: UnitGrants) -> None:
    """Whatever number comes with it."""
    assert learned(grants, "a", b"hers", HIS, Status.UNKNOWN_UNIT)
    assert not may_use(grants, "a", HIS)


@pytest.mark.parametrize(
    ("commands", "in_use"),
    [
        ([read(HERS, 1), identify(1)], False),
        ([identify(1), read(HERS, 1)], False),
        ([identify(1), identify(1)], False),
        ([identify(1)], True),
    ],
)
def test_id_that_is_in_use_identifies_nothing(grants: UnitGrants, commands: list[Command], in_use: bool) -> None:
    """The answer to another command, whose value the peer chooses, is not taken for a unit's number."""
    data: Collection[bytes] = [b"hers" for command in commands if command.opcode is Opcode.IDENTIFY]
    found = grants.sort("a", commands, list(data), lambda id_: in_use)
    grants.answered("a", [Completion(id_of(1), Status.OK, 512, HIS)])
    assert identify(1) in found.refused
    assert not may_use(grants, "a", HIS)


def test_new_life_has_to_identify_again(grants: UnitGrants) -> None:
    """A resumed session goes on with what it has, a new one with nothing."""
    grants.opened("a", resumed=True)
    assert may_use(grants, "a", HERS)
    grants.opened("a", resumed=False)
    assert not may_use(grants, "a", HERS)


def test_answer_to_a_former_life_gives_nothing(grants: UnitGrants) -> None:
    """It is dropped with the life that asked."""
    grants.sort("a", [identify(9)], [b"hers"], unknown)
    grants.opened("a", resumed=False)
    grants.answered("a", [Completion(id_of(9), Status.OK, 0, HERS)])
    assert not may_use(grants, "a", HERS)


def test_unit_granted_to_another_is_lost_at_once(grants: UnitGrants) -> None:
    """A guest has moved: its former hypervisor cannot touch its disk any more."""
    grants.grant({"a": [], "b": ["his", "hers"]})
    assert not may_use(grants, "a", HERS)
    assert learned(grants, "b", b"hers", HERS)
    assert may_use(grants, "b", HERS)


def test_unit_granted_to_nobody_may_be_finished_with(grants: UnitGrants) -> None:
    """The last commands of a guest that goes do not fail; it cannot be identified again."""
    grants.grant({"a": [], "b": ["his"]})
    assert may_use(grants, "a", HERS)
    assert not learned(grants, "a", b"hers", HERS)


def test_unit_shared_by_two_peers_stays_when_one_loses_it(grants: UnitGrants) -> None:
    """A read-only extent, for instance."""
    grants.grant({"a": ["hers", "base"], "b": ["his", "base"]})
    assert learned(grants, "a", b"base", 9)
    assert learned(grants, "b", b"base", 9)
    grants.grant({"a": ["hers"], "b": ["his", "base"]})
    assert [may_use(grants, peer, 9) for peer in ("a", "b")] == [False, True]


def test_number_with_a_new_name_is_lost_by_its_former_owner(grants: UnitGrants) -> None:
    """A switch gives the number of a port that was unplugged to another one."""
    grants.grant({"a": [], "b": ["his", "new"]})
    assert learned(grants, "b", b"new", HERS)
    assert [may_use(grants, peer, HERS) for peer in ("a", "b")] == [False, True]


def test_grant_withdrawn_while_identification_is_under_way_gives_nothing(grants: UnitGrants) -> None:
    """What holds when the answer comes counts."""
    grants.sort("a", [identify(9)], [b"hers"], unknown)
    grants.grant({"a": [], "b": ["his", "hers"]})
    grants.answered("a", [Completion(id_of(9), Status.OK, 0, HERS)])
    assert not may_use(grants, "a", HERS)


def test_identifications_under_way_are_bounded(grants: UnitGrants, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer whose device does not answer cannot fill our memory."""
    monkeypatch.setattr(module, "MAX_ASKED", 2)
    seen = [grants.sort("a", [identify(number)], [b"hers"], unknown).granted for number in range(10, 14)]
    assert [len(granted) for granted in seen] == [1, 1, 0, 0]
    assert grants.asking
    grants.answered("a", [Completion(id_of(10), Status.OK, 0, HERS), Completion(id_of(11), Status.OK, 0, HERS)])
    assert not grants.asking


def test_peer_without_grants_has_nothing() -> None:
    """A hypervisor whose guests are yet to come."""
    grants = UnitGrants({})
    grants.opened("c", resumed=True)
    assert not learned(grants, "c", b"hers", HERS)
    assert not may_use(grants, "c", HERS)


def test_id_in_use_is_known_until_it_is_forgotten() -> None:
    """In flight, and as long as its completion would be sent again; never at a pair that is closed."""
    pairs = QueuePairs(queue_credits=1, burst=1)
    pairs.opened(QueuePairOpened(5, "a", False))
    pairs.submit(CommandsSubmitted(5, [write(0, 1)], [b"x"]))
    known = [pairs.knows(5, id_of(1))]
    pairs.complete(pairs.take(1)[0], Status.OK)
    known.append(pairs.knows(5, id_of(1)))
    pairs.submit(CommandsSubmitted(5, [write(0, 2)], [b"x"]))
    pairs.complete(pairs.take(1)[0], Status.OK)
    known += [pairs.knows(5, id_of(1)), pairs.knows(5, id_of(2)), pairs.knows(6, id_of(2))]
    assert known == [True, True, False, True, False]
