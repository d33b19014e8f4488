"""TOML text to the tables of `iovirt_dist.topology.schema`, with errors that name the key.

msgspec alone would report the first wrong key by a path of its own and without a suggestion, so the raw dictionary is
walked next to the struct definitions; each leaf is converted by msgspec, strictly (no number from text, no integer
from a float).
"""

from __future__ import annotations

import ast
import difflib
import re
import tomllib
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import schema

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")

_TWICE: Final = re.compile(r"Cannot declare (?P<key>\(.*\)) twice \(at (?P<line>line \d+), column \d+\)", re.DOTALL)
"""tomllib's message for a table that is there already; the key is a tuple of its parts."""

_TYPE_NAMES: Final[dict[Any, str]] = {str: "a string", int: "an integer", bool: "true or false", float: "a number"}
_TABLE_NAMES: Final[dict[Any, str]] = {str: "a table of strings", Any: "a table"}


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the fix for an unknown `word`: the nearest known one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(names)}" if names else "there are none"


def join_key(path: str, key: str) -> str:
    """Append a key to a dotted TOML path, quoted where TOML needs it."""
    shown = key if _BARE_KEY.fullmatch(key) else f'"{key}"'
    return f"{path}.{shown}" if path else shown


def _seen(value: object) -> str:
    """Show a value as TOML would have it, cut to what fits a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _alternatives(words: Iterable[str]) -> str:
    """List words as in ``"a", "b" or "c"``."""
    quoted = [f'"{word}"' for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _type_name(hint: Any) -> str:
    """Say what a leaf expects, in words."""
    if get_origin(hint) is Union:  # a key that may be absent: TOML has no null
        hint = get_args(hint)[0]
    if get_origin(hint) is Annotated:
        for note in get_args(hint)[1:]:
            if isinstance(note, msgspec.Meta) and note.description:
                return note.description
    if get_origin(hint) is Literal:
        return _alternatives(get_args(hint))
    return _TYPE_NAMES.get(hint, str(hint))


class _Walker:
    """Walks one file's dictionary along the struct definitions.

    Args:
        source: The file's name for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source

    def _fail(self, path: str, what: str, fix: str = "") -> ConfigError:
        return ConfigError(what, f"{self._source}: {path}" if path else self._source, fix)

    def table(self, raw: object, struct: type[schema.Table], path: str) -> schema.Table:
        """Convert one table.

        Raises:
            ConfigError: At the first key that is unknown, missing or of the wrong type.
        """
        if not isinstance(raw, dict):
            raise self._fail(path, f"expected a table, got {_seen(raw)}")
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        for key in raw:
            if key not in fields:
                raise self._fail(join_key(path, key), "unknown key", suggestion(key, fields))
        hints = get_type_hints(struct, include_extras=True)
        for key, field in fields.items():
            if field.required and key not in raw:
                raise self._fail(path, f"key '{key}' is missing", f"add {key} = {_type_name(hints[field.name])}")
        return struct(**{fields[key].name: self._value(raw[key], hints[key], join_key(path, key)) for key in raw})

    def _value(self, raw: object, hint: Any, path: str) -> object:
        if get_origin(hint) is UnionType:  # a table that may be absent
            hint = get_args(hint)[0]
        if isinstance(hint, type) and issubclass(hint, schema.Table):
            return self.table(raw, hint, path)
        if get_origin(hint) is dict:
            return self._dictionary(raw, get_args(hint)[1], path)
        try:
            return msgspec.convert(raw, hint)
        except msgspec.ValidationError:
            raise self._fail(path, f"expected {_type_name(hint)}, got {_seen(raw)}") from None

    def _dictionary(self, raw: object, hint: Any, path: str) -> dict[str, Any]:
        """Convert a table whose keys are the user's: named tables, words, or anything."""
        leaves = hint is Any or hint is str or get_origin(hint) is Annotated
        if not isinstance(raw, dict):
            what = _TABLE_NAMES.get(hint, "a table of values" if leaves else "a table of tables")
            raise self._fail(path, f"expected {what}, got {_seen(raw)}")
        convert = self._value if leaves else self._member
        return {name: convert(value, hint, join_key(path, name)) for name, value in raw.items()}

    def _member(self, raw: object, hint: Any, path: str) -> schema.Table:
        """Convert one named table; where the section has kinds its ``kind`` decides."""
        kinds = schema.KINDS.get(hint)
        if kinds is None:
            return self.table(raw, hint, path)
        if not isinstance(raw, dict):
            raise self._fail(path, f"expected a table, got {_seen(raw)}")
        words = _alternatives(kinds)
        if "kind" not in raw:
            near = difflib.get_close_matches("kind", raw, n=1, cutoff=0.7)
            raise self._fail(
                path, "key 'kind' is missing", f"'{near[0]}' is unknown" if near else f"add kind = {words}"
            )
        kind = raw["kind"]
        if not isinstance(kind, str) or kind not in kinds:
            fix = suggestion(kind, kinds) if isinstance(kind, str) else ""
            raise self._fail(join_key(path, "kind"), f"expected {words}, got {_seen(kind)}", fix)
        return self.table(raw, kinds[kind], path)


def _toml_error(message: str, source: str) -> ConfigError:
    """Turn tomllib's message into ours."""
    twice = _TWICE.fullmatch(message)
    if twice is None:
        return ConfigError(f"not valid TOML: {message}", source)
    path = ""
    for key in ast.literal_eval(twice["key"]):
        path = join_key(path, key)
    return ConfigError(f"{path} is declared twice", f"{source}: {twice['line']}", "rename one, or merge the two tables")


def parse_document(text: str, source: str) -> schema.Document:
    """Parse a topology file's text.

    Args:
        text: TOML 1.0.
        source: The file's name for messages.

    Returns:
        The file's tables with defaults filled in; references between them are not checked yet.

    Raises:
        ConfigError: The text is no TOML, or a key is unknown, missing or of the wrong type; `where` names file and key.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(str(error), source) from None
    document = _Walker(source).table(raw, schema.Document, "")
    assert isinstance(document, schema.Document)
    return document
