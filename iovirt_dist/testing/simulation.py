"""Simulated processes on a simulated network: what drives a rig, and what breaks it on purpose."""

from __future__ import annotations

from collections.abc import Callable

from iovirt_dist.errors import LocalError
from iovirt_dist.faults.link import Faults
from iovirt_dist.step import TracePoint
from iovirt_dist.testing.clock import VirtualClock
from iovirt_dist.testing.nodes import LogLine, Node, World
from iovirt_dist.testing.trace import MessageTrace
from iovirt_dist.transport.memory import LinkModel, MemoryNetwork

SECOND_NS = 1_000_000_000
LINGER_NS = 10_000_000
"""How long a node that ends in order waits until its last messages are on their way, as sockets linger."""

_SETTLE_LIMIT_NS = 60 * SECOND_NS


class Simulation:
    """Nodes, links and time.

    Args:
        faults: What happens to messages on every link.
        seed: Of the network's luck.
        lease_ms: Silence after which a peer counts as lost.
        capacity: Messages kept in `messages`.

    Attributes:
        clock: Virtual time.
        network: The links.
        messages: Every message that arrived anywhere, decoded, oldest first.
        log: What the processes would have logged.
        nodes: Simulated processes by name.
    """

    def __init__(self, faults: LinkModel, seed: int, lease_ms: int, capacity: int) -> None:
        self.clock = VirtualClock()
        self.faults = faults
        self.network = MemoryNetwork(self.clock, seed, faults)
        self.messages = MessageTrace(capacity)
        self.log: list[LogLine] = []
        self.nodes: dict[str, Node] = {}
        self.points: list[TracePoint] = []
        """Trace points of the cores that are traced."""
        self.world = World(self.clock, self.network, self.messages, self.log, self.points, lease_ms)
        self._ticked_ns = -1

    # --- time

    def now_ns(self) -> int:
        """Return the virtual time."""
        return self.clock.now_ns

    def step(self) -> None:
        """Let the next thing happen: one message is handled, or time moves on to the next event.

        Raises:
            LocalError: Nothing will ever happen: no node runs.
        """
        if self._handle_message():
            return
        at_ns = self._next_ns()
        if at_ns is None:
            raise LocalError("nothing will ever happen", "rig", "start a node")
        self._advance_to(at_ns)

    def run_until(self, done: Callable[[], bool], limit_ns: int = 60 * SECOND_NS, what: str = "a condition") -> None:
        """Run until `done` holds; it is asked before the first step and after each.

        Raises:
            LocalError: It does not hold after `limit_ns` of virtual time; the text says what is under way.
        """
        end_ns = self.clock.now_ns + limit_ns
        while not done():
            if self.clock.now_ns > end_ns:
                waiting = "; ".join(self.busy()) or "nothing is under way"
                raise LocalError(f"still no {what} after {limit_ns / 1e9:.3g} virtual seconds: {waiting}", "rig")
            self.step()

    def run_for(self, duration_ns: int) -> None:
        """Let everything happen that happens within this virtual time, and let that time pass."""
        end_ns = self.clock.now_ns + duration_ns
        while True:
            if self._handle_message():
                continue
            at_ns = self._next_ns()
            if at_ns is None or at_ns > end_ns:
                break
            self._advance_to(at_ns)
        self.clock.advance_to(end_ns)

    def settle(self, limit_ns: int = _SETTLE_LIMIT_NS) -> None:
        """Run until nothing is under way: no message, no command at the block controller, nothing unacknowledged.

        A parked console receive is not under way, as it waits for somebody to type. Signs of life go on for ever.

        Raises:
            LocalError: Something is still under way after `limit_ns` of virtual time, for instance because a node is
                down; the text says what.
        """
        self.run_until(lambda: not self.busy(), limit_ns, "rest")

    def busy(self) -> list[str]:
        """Say what is under way, a line each; empty when all is settled."""
        lines = [line for node in self.nodes.values() if (line := node.busy())]
        if self.network.next_event_ns() is not None:
            lines.append("messages on the network")
        return lines

    # --- breaking things

    def start(self, *names: str) -> None:
        """Start nodes, in this order."""
        for name in names:
            self._node(name).start()

    def kill(self, *names: str) -> None:
        """End nodes as SIGKILL does."""
        for name in names:
            self._node(name).kill()

    def stop(self, *names: str) -> None:
        """End nodes as SIGTERM does: they say goodbye, and `LINGER_NS` pass."""
        for name in names:
            node = self._node(name)
            node.say_goodbye()
            self.run_for(LINGER_NS)
            node.kill()

    def restart(self, name: str) -> None:
        """Kill a node and start it in a new life."""
        self.kill(name)
        self.start(name)

    def suspend(self, name: str) -> None:
        """Let a node do nothing from now on, as SIGSTOP does: messages wait for it."""
        self._node(name).suspended = True

    def resume(self, name: str) -> None:
        """Undo `suspend`, as SIGCONT does."""
        self._node(name).suspended = False

    def cut(self, one: str, other: str) -> None:
        """Lose everything between two nodes from now on; they are not told."""
        self._set_link(one, other, Faults(loss=1.0))

    def heal(self, one: str, other: str) -> None:
        """Undo `cut`."""
        self._set_link(one, other, self.faults)

    # --- inside

    def _node(self, name: str) -> Node:
        if name not in self.nodes:
            raise LocalError("no such node", name, f"nodes: {', '.join(self.nodes)}")
        return self.nodes[name]

    def _set_link(self, one: str, other: str, model: LinkModel) -> None:
        for source, destination in ((one, other), (other, one)):
            self._node(source)
            self.network.set_faults(model, source, destination)

    def _handle_message(self) -> bool:
        """Let the first node that has a message handle it; False if none has."""
        return any(node.handle_message() for node in self.nodes.values() if not node.suspended)

    def _next_ns(self) -> int | None:
        """When the next thing happens, later than timers that have fired already; None for never."""
        awake = (node for node in self.nodes.values() if not node.suspended)
        due = [at for node in awake if (at := node.deadline_ns()) is not None]
        arrival = self.network.next_event_ns()
        if arrival is not None:
            due.append(arrival)
        return max(min(due), self._ticked_ns + 1) if due else None

    def _advance_to(self, at_ns: int) -> None:
        """Move time on and fire timers."""
        now_ns = self.clock.advance_to(at_ns)
        ticked = False
        for node in self.nodes.values():
            due = node.deadline_ns()
            if due is not None and due <= now_ns and not node.suspended:
                node.tick()
                ticked = True
        if ticked:
            self._ticked_ns = now_ns
