"""What a step of the hypervisor has decided so far: actions in their order, and when time alone will go on."""

from __future__ import annotations

from iovirt_dist.hypervisor.events import Action, Note


class Outbox:
    """Actions of the step, and the deadline of the steps since time was last looked at.

    Attributes:
        actions: In order.
        deadline_ns: When a `TimerFired` is due; None for never.
    """

    __slots__ = ("actions", "append", "deadline_ns")

    def __init__(self) -> None:
        self.deadline_ns: int | None = None
        self.begin()

    def begin(self) -> None:
        """Another step begins."""
        self.actions: list[Action] = []
        self.append = self.actions.append

    def note(self, text: str) -> None:
        """Log one line."""
        self.append(Note(text))

    def lower_deadline(self, at_ns: int | None) -> None:
        """Something is to be done at that time; None for nothing."""
        if at_ns is not None and (self.deadline_ns is None or at_ns < self.deadline_ns):
            self.deadline_ns = at_ns
