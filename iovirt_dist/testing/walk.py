"""Follows one request through the rooms: which of our functions were called, in which order, with what.

A `Walk` watches functions by their code (`sys.setprofile`), so nothing is replaced and what runs is what runs always.
It sees the thread that it was entered in; on a rig that is everything, machine code's traps included.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple


class Visit(NamedTuple):
    """One call of a watched function.

    Attributes:
        stop: Qualified name, e.g. ``AddressMap.find``.
        where: File of the function and its line.
        arguments: By name, as they were at the call.
    """

    stop: str
    where: str
    arguments: dict[str, Any]


class Walk:
    """A context in which calls of certain functions are recorded.

    Args:
        stops: Python functions or methods, as taken from their module or class.

    Attributes:
        visits: Calls so far, in order.
    """

    def __init__(self, stops: Sequence[Callable[..., Any]]) -> None:
        self.visits: list[Visit] = []
        self._names: dict[CodeType, str] = {_code(stop): stop.__qualname__ for stop in stops}

    def __enter__(self) -> Walk:
        sys.setprofile(self._on_event)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setprofile(None)

    def first_after(self, stop: Callable[..., Any], position: int) -> int:
        """Return where `stop` was visited first at or behind a position in `visits`.

        Raises:
            LookupError: It was not; the text says what was visited instead.
        """
        for at in range(position, len(self.visits)):
            if self.visits[at].stop == stop.__qualname__:
                return at
        seen = [visit.stop for visit in self.visits[position:]]
        raise LookupError(f"{stop.__qualname__} was not visited after stop {position}; visited: {seen or 'nothing'}")

    def in_order(self, stops: Sequence[Callable[..., Any]], position: int = 0) -> list[Visit]:
        """Return one visit of each stop from a position on, each behind the last; raises as `first_after` does."""
        found: list[Visit] = []
        for stop in stops:
            position = self.first_after(stop, position)
            found.append(self.visits[position])
            position += 1
        return found

    def _on_event(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and (name := self._names.get(frame.f_code)) is not None:
            where = f"{frame.f_code.co_filename}:{frame.f_code.co_firstlineno}"
            self.visits.append(Visit(name, where, dict(frame.f_locals)))


def _code(stop: Callable[..., Any]) -> CodeType:
    code = getattr(stop, "__code__", None)
    if not isinstance(code, CodeType):
        raise TypeError(f"{stop!r} is no Python function")
    return code
