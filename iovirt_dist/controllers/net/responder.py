"""The built-in host of a switch: ARP, ICMP echo, and if wanted a DHCP and a TFTP server.

It answers each frame to where the frame came from, so it asks nobody for addresses; it says nothing by itself, apart
from what TFTP sends again. One frame leads to one answer at most.
"""

from __future__ import annotations

from typing import Any, Final

from iovirt_dist.controllers.net import dhcp, packets
from iovirt_dist.controllers.net.config import ResponderConfig
from iovirt_dist.controllers.net.packets import Arp, Datagram, Ipv4Packet
from iovirt_dist.controllers.net.tftp import Client, FileAccess, FileOpened, FileOutcome, TftpServer

_EVERYBODY: Final = b"\xff" * 4
_NOBODY: Final = bytes(4)
_FIRST_GROUP: Final = 0xE0
"""First byte of the first multicast address (RFC 5771): no host's, as are all above it."""


class Responder:
    """The host.

    Args:
        config: What it is.

    Attributes:
        sent: Frames to send; whoever sends them clears it.
        echoes: Pings that were answered.
    """

    def __init__(self, config: ResponderConfig) -> None:
        self.sent: list[bytes] = []
        self.echoes = 0
        self._mac = config.mac
        self._address = config.interface.ip.packed
        self._network_broadcast = config.interface.network.broadcast_address.packed
        self._dhcp = dhcp.DhcpServer(config.interface, *config.dhcp) if config.dhcp else None
        self._tftp = TftpServer(config.mtu, self._send_datagram) if config.tftp else None

    def receive(self, frame: bytes, now_ns: int) -> None:
        """Take a frame; the answer, if there is one, is in `sent`."""
        destination, source, kind = frame[:6], frame[6:12], frame[12:14]
        if destination not in (self._mac, packets.BROADCAST):
            return
        payload = frame[packets.ETHERNET_HEADER_BYTES :]
        if kind == packets.ETHERTYPE_ARP:
            self._arp(packets.parse_arp(payload), source)
        elif kind == packets.ETHERTYPE_IPV4:
            packet = packets.parse_ipv4(payload)
            if packet is not None and self._is_from_a_host(packet):
                self._ipv4(packet, source, now_ns)

    def file_event(self, event: FileOutcome, now_ns: int) -> None:
        """What was asked of a file has been done."""
        if self._tftp is None:
            return
        if isinstance(event, FileOpened):
            self._tftp.opened(event, now_ns)
        else:
            self._tftp.read(event, now_ns)

    def take_accesses(self) -> list[FileAccess]:
        """Return what is to be done with files."""
        if self._tftp is None:
            return []
        accesses, self._tftp.accesses = self._tftp.accesses, []
        return accesses

    def deadline_ns(self) -> int | None:
        """When `tick` has something to do."""
        return self._tftp.deadline_ns() if self._tftp is not None else None

    def tick(self, now_ns: int) -> None:
        """Do what is due."""
        if self._tftp is not None:
            self._tftp.tick(now_ns)

    def status(self) -> dict[str, Any]:
        """What it did."""
        status: dict[str, Any] = {"echoes": self.echoes}
        if self._dhcp is not None:
            server = self._dhcp
            status["dhcp"] = {
                "acknowledged": server.acknowledged,
                "refused": server.refused,
                "leases": server.leases,
            }
        if self._tftp is not None:
            server_ = self._tftp
            status["tftp"] = {"started": server_.started, "finished": server_.finished, "failed": server_.failed}
        return status

    def _is_from_a_host(self, packet: Ipv4Packet) -> bool:
        return packet.source not in (self._address, self._network_broadcast) and packet.source[0] < _FIRST_GROUP

    def _arp(self, request: Arp | None, source: bytes) -> None:
        if request is None or request.operation != packets.ARP_REQUEST or request.target_address != self._address:
            return
        reply = Arp(packets.ARP_REPLY, self._mac, self._address, request.sender_mac, request.sender_address)
        self._send(source, packets.ETHERTYPE_ARP, packets.make_arp(reply))

    def _ipv4(self, packet: Ipv4Packet, source: bytes, now_ns: int) -> None:
        datagram = packets.parse_udp(packet) if packet.protocol == packets.PROTOCOL_UDP else None
        if datagram is not None and datagram.destination_port == dhcp.SERVER_PORT and self._dhcp is not None:
            if packet.destination in (self._address, _EVERYBODY, self._network_broadcast):
                self._serve_dhcp(datagram, source, now_ns)
        elif packet.destination != self._address or packet.source == _NOBODY:
            return
        elif datagram is not None:
            self._udp(packet, datagram, source)
        elif packet.protocol == packets.PROTOCOL_ICMP:
            reply = packets.make_echo_reply(packet.payload)
            if reply is not None:
                self.echoes += 1
                self._send_icmp(packet, reply, source)

    def _udp(self, packet: Ipv4Packet, datagram: Datagram, source: bytes) -> None:
        if self._tftp is not None and self._tftp.takes(datagram.destination_port):
            self._tftp.receive(Client(source, packet.source, datagram.source_port), datagram)
        else:
            self._send_icmp(packet, packets.make_port_unreachable(packet), source)

    def _serve_dhcp(self, datagram: Datagram, source: bytes, now_ns: int) -> None:
        assert self._dhcp is not None, "there is a server for what it is given"
        reply = self._dhcp.receive(datagram.payload, source, now_ns)
        if reply is None:
            return
        answer = Datagram(dhcp.SERVER_PORT, dhcp.CLIENT_PORT, reply.payload)
        mac = packets.BROADCAST if reply.address is None else source
        udp = packets.make_udp(self._address, reply.address or _EVERYBODY, answer)
        self._send(mac, packets.ETHERTYPE_IPV4, udp)

    def _send_icmp(self, packet: Ipv4Packet, message: bytes, source: bytes) -> None:
        reply = packets.make_ipv4(self._address, packet.source, packets.PROTOCOL_ICMP, message)
        self._send(source, packets.ETHERTYPE_IPV4, reply)

    def _send_datagram(self, client: Client, datagram: Datagram) -> None:
        udp = packets.make_udp(self._address, client.address, datagram)
        self._send(client.mac, packets.ETHERTYPE_IPV4, udp)

    def _send(self, destination: bytes, ethertype: bytes, payload: bytes) -> None:
        self.sent.append(packets.make_frame(destination, self._mac, ethertype, payload))
