"""Faults of one link: delay, loss, duplication, reordering, and times when it is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from iovirt_dist.errors import ConfigError
from iovirt_dist.transport.memory import Delivery

MAX_DELAY_NS = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class Cut:
    """A time during which everything sent on the link is lost.

    Attributes:
        from_ns: First instant, in the network's time.
        until_ns: First instant after it.

    Raises:
        ConfigError: The end is not after the beginning, or the beginning is negative.
    """

    from_ns: int
    until_ns: int

    def __post_init__(self) -> None:
        if not 0 <= self.from_ns < self.until_ns:
            raise ConfigError(f"cut is {self.from_ns}..{self.until_ns} ns", "faults", "let it end after it begins")


@dataclass(frozen=True, slots=True)
class Faults:
    """What may happen to each message of a link; implements `transport.memory.LinkModel`.

    Attributes:
        delay_ns: Least and greatest delay, drawn evenly; messages keep their order.
        loss: Share that is lost, 0..1.
        duplicate: Share that arrives twice, 0..1; the second copy has a delay of its own, out of order.
        reorder: Share that may arrive out of order, 0..1, held back by up to `reorder_ns` more.
        reorder_ns: Greatest additional delay of a reordered message.
        cuts: Times at which all is lost.

    Raises:
        ConfigError: A value is outside its range.
    """

    delay_ns: tuple[int, int] = (0, 0)
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_ns: int = 1_000_000
    cuts: tuple[Cut, ...] = ()

    def __post_init__(self) -> None:
        low, high = self.delay_ns
        if not 0 <= low <= high <= MAX_DELAY_NS:
            raise ConfigError(f"delay_ns is {low}..{high}", "faults", f"use 0 <= least <= greatest <= {MAX_DELAY_NS}")
        if not 0 <= self.reorder_ns <= MAX_DELAY_NS:
            raise ConfigError(f"reorder_ns is {self.reorder_ns}", "faults", f"use 0..{MAX_DELAY_NS}")
        for key, share in (("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder)):
            if not 0.0 <= share <= 1.0:
                raise ConfigError(f"{key} is {share}", "faults", "use a share between 0 and 1")

    def deliveries(self, now_ns: int, random: Random) -> Sequence[Delivery]:
        """Draw the arrivals of one message.

        The same numbers are drawn whatever the outcome, so that one message's fate does not shift the next one's.
        """
        lose, double, disorder, first, second, late = (random.random() for _ in range(6))
        if lose < self.loss or any(cut.from_ns <= now_ns < cut.until_ns for cut in self.cuts):
            return ()
        low, high = self.delay_ns
        held_ns = int(late * self.reorder_ns) if disorder < self.reorder else 0
        arrivals = [Delivery(now_ns + low + int(first * (high - low)) + held_ns, in_order=disorder >= self.reorder)]
        if double < self.duplicate:
            arrivals.append(Delivery(now_ns + low + int(second * (high - low + self.reorder_ns)), in_order=False))
        return arrivals
