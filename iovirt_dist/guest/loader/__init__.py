"""From the bytes of a boot image to checked segments, an entry point and the registers that the format promises."""

from iovirt_dist.guest.loader.elf import load_elf
from iovirt_dist.guest.loader.image import (
    PC,
    VIRT,
    Architecture,
    ImageFormat,
    LoadedImage,
    RamRange,
    Segment,
    Target,
    pc_target,
    virt_target,
)
from iovirt_dist.guest.loader.multiboot import Module, load_multiboot
from iovirt_dist.guest.loader.path import load_bytes, load_path
from iovirt_dist.guest.loader.raw import load_flat, load_rom

__all__ = [
    "PC",
    "VIRT",
    "Architecture",
    "ImageFormat",
    "LoadedImage",
    "Module",
    "RamRange",
    "Segment",
    "Target",
    "load_bytes",
    "load_elf",
    "load_flat",
    "load_multiboot",
    "load_path",
    "load_rom",
    "pc_target",
    "virt_target",
]
