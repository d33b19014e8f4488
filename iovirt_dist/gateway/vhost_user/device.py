"""What the back end must know of its device, and what it makes of that for front ends."""

from __future__ import annotations

from typing import Final, NamedTuple

from iovirt_dist.errors import PeerError
from iovirt_dist.gateway.vhost_user.messages import ProtocolFeature, Request
from iovirt_dist.virtio.features import Feature, mask

OFFERED_PROTOCOL_FEATURES: Final = mask(*ProtocolFeature)
"""All that we know."""

NOT_OURS: Final = mask(
    Feature.RING_PACKED,
    Feature.ACCESS_PLATFORM,
    Feature.SR_IOV,
    Feature.NOTIFICATION_DATA,
    Feature.NOTIF_CONFIG_DATA,
    Feature.RING_RESET,
)
"""Features of rings and transports that this protocol, or this back end, does not do."""

NEEDS: Final = {
    Request.SET_BACKEND_REQ_FD: ProtocolFeature.BACKEND_REQ,
    Request.GET_CONFIG: ProtocolFeature.CONFIG,
    Request.SET_CONFIG: ProtocolFeature.CONFIG,
    Request.GET_INFLIGHT_FD: ProtocolFeature.INFLIGHT_SHMFD,
    Request.SET_INFLIGHT_FD: ProtocolFeature.INFLIGHT_SHMFD,
    Request.RESET_DEVICE: ProtocolFeature.RESET_DEVICE,
    Request.GET_MAX_MEM_SLOTS: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.ADD_MEM_REG: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.REM_MEM_REG: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.SET_STATUS: ProtocolFeature.STATUS,
}
"""Protocol features without which requests are refused."""


class RequestError(PeerError):
    """A well-formed request cannot be carried out.

    Reasons: ``protocol-feature``, ``feature-unknown``, ``feature-late``, ``queue-number``, ``queue-size``,
    ``queue-base``, ``queue-running``, ``queue-memory``, ``queue-enable``, ``queue-polled``, ``config-range``,
    ``config-read-only``, ``status`` and ``inflight-queues``.
    """


class DeviceFacts(NamedTuple):
    """What the device is like.

    Attributes:
        features: That it offers (VIRTIO, section 2.2).
        queue_sizes: Most entries of each queue; at most 256 queues.
        config: Its configuration space.
    """

    features: int
    queue_sizes: tuple[int, ...]
    config: bytes


NO_FACTS: Final = DeviceFacts(0, (), b"")
