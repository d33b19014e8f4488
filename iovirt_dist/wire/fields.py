"""Types of message fields, with the bounds that the decoder enforces."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

U8: TypeAlias = Annotated[int, Meta(ge=0, le=0xFF)]
U16: TypeAlias = Annotated[int, Meta(ge=0, le=0xFFFF)]
U32: TypeAlias = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
U63: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
U64: TypeAlias = Annotated[int, Meta(ge=0)]
"""msgpack itself bounds it at 2**64-1."""
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")]
Text: TypeAlias = Annotated[str, Meta(max_length=256)]
