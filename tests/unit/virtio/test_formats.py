"""Formats against the offsets that the specification gives."""

from __future__ import annotations

from iovirt_dist.virtio import block, console, features, mmio, network


def test_block_config_packed_fields_lie_at_their_offsets() -> None:
    """Section 5.2.4: capacity 0, blk_size 20, topology 24, writeback 32, num_queues 34, discard 36, zeroes 48."""
    packed = block.BlockConfig(
        capacity=0x0102030405060708,
        seg_max=126,
        blk_size=4096,
        min_io_size=0x1122,
        writeback=1,
        num_queues=3,
        max_discard_sectors=8192,
        max_write_zeroes_sectors=77,
        write_zeroes_may_unmap=1,
        max_secure_erase_sectors=99,
    ).pack()
    assert len(packed) == block.CONFIG_BYTES == 72
    assert packed[0:8] == bytes.fromhex("0807060504030201")
    assert int.from_bytes(packed[12:16], "little") == 126
    assert int.from_bytes(packed[20:24], "little") == 4096
    assert int.from_bytes(packed[26:28], "little") == 0x1122
    assert packed[32:36] == bytes((1, 0, 3, 0))
    assert int.from_bytes(packed[36:40], "little") == 8192
    assert int.from_bytes(packed[48:52], "little") == 77
    assert packed[56:60] == bytes((1, 0, 0, 0))
    assert int.from_bytes(packed[60:64], "little") == 99


def test_block_config_unpacked_equals_what_was_packed() -> None:
    """Pack and unpack are inverse over fields that are all different."""
    config = block.BlockConfig(*range(1, 23))
    assert block.BlockConfig.unpack(config.pack()) == config


def test_block_header_packed_is_type_reserved_sector() -> None:
    """Section 5.2.6: 16 bytes in front of the data."""
    header = block.HEADER.pack(block.BlockRequest.OUT, 0, 0x1_0000_0001)
    assert header == bytes.fromhex("01000000 00000000 0100000001000000")
    assert block.HEADER_BYTES == 16
    assert block.RANGE.size == 16


def test_console_config_packed_has_emergency_write_last() -> None:
    """Section 5.3.4: 12 bytes; `emerg_wr` at offset 8."""
    config = console.ConsoleConfig(cols=80, rows=25, max_nr_ports=1, emerg_wr=0x41)
    assert config.pack() == bytes.fromhex("5000 1900 01000000 41000000")
    assert config.pack()[console.EMERGENCY_WRITE_OFFSET] == 0x41
    assert console.ConsoleConfig.unpack(config.pack()) == config
    assert console.CONTROL.size == 8


def test_network_config_packed_fields_lie_at_their_offsets() -> None:
    """Section 5.1.4: mac 0, status 6, pairs 8, mtu 10, speed 12, duplex 16."""
    config = network.NetworkConfig(b"\x52\x54\x00\x01\x02\x03", network.LinkStatus.LINK_UP, mtu=9000)
    packed = config.pack()
    assert len(packed) == network.CONFIG_BYTES == 24
    assert packed[:17] == bytes.fromhex("525400010203 0100 0100 2823 ffffffff ff")
    assert network.NetworkConfig.unpack(packed) == config
    assert network.HEADER_BYTES == 12


def test_features_mask_holds_what_it_was_made_of() -> None:
    """Feature n is bit n."""
    chosen = features.mask(features.Feature.VERSION_1, features.Feature.RING_EVENT_IDX)
    assert chosen == 1 << 32 | 1 << 29
    assert features.has(chosen, features.Feature.VERSION_1)
    assert not features.has(chosen, features.Feature.RING_PACKED)


def test_mmio_magic_reads_as_text() -> None:
    """Section 4.2.2: MagicValue is "virt"."""
    assert mmio.MAGIC.to_bytes(4, "little") == b"virt"
    assert mmio.Register(0x0FC) is mmio.Register.CONFIG_GENERATION
    assert mmio.Register(0x100) is mmio.Register.CONFIG
