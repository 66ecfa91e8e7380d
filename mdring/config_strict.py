"""Strict conversion of a parsed TOML document to Structs: finds every error, not just the first.

Knows no key of mdring's configuration: what is valid is read from the annotations of the Structs.
Called by ``config.load`` in whichever process starts a run or checks a file, also for the
``[venues.options]`` table, whose Struct belongs to the venue's adapter. Example::

    reader = StrictReader()
    tape = reader.read(TapeConfig, {"slot": 65536}, "tape")
    reader.problems[0].message      # unknown key; did you mean 'slots'?

A Struct may name keys of which exactly one must be given: ``ALTERNATIVES: ClassVar = (("instrument", "match"),)``.

A Struct is built even if some of its values are wrong, with defaults in their place, so that the checks
that follow can look at the rest. Hence whoever calls looks at ``problems`` before using the result.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from msgspec import Struct, inspect, structs

_FOUND_MAX_CHARACTERS: Final = 100


class Problem(Struct, frozen=True, omit_defaults=True):
    """One thing wrong in a configuration file.

    ``key`` is the path of the key (``venues[1].connection.reconnect_delay_ms``, tables of an array counted
    from 0), ``found`` what stands there as JSON text, ``valid`` what may stand there, in words.
    """

    key: str
    message: str
    found: str = ""
    valid: str = ""

    def __str__(self) -> str:
        parts = [self.message]
        if self.found:
            parts.append(f"found {self.found}")
        if self.valid:
            parts.append(f"valid: {self.valid}")
        return f"{self.key}: {'; '.join(parts)}" if self.key else "; ".join(parts)


class ConfigError(Exception):
    """A configuration cannot be used: the user's fault. Holds every problem that was found."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(self.problems)} error{'s' if len(self.problems) != 1 else ''}"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in self.problems)]))


class _Invalid:
    """In place of a value that could not be converted."""


_INVALID: Final = _Invalid()


class StrictReader:
    """Converts values to annotated types and collects the problems on the way."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._keys: dict[int, str] = {}
        self._read: list[Struct] = []  # keeps what _keys names by id alive

    def read(self, type_: Any, value: object, key: str) -> Any:
        """Convert ``value``, which stands at ``key``, to ``type_``; ``None`` if nothing can be made of it."""
        result = self._convert(type_, value, key)
        return None if result is _INVALID else result

    def key_of(self, struct: Struct) -> str:
        """Path of the key from which this very object was read."""
        return self._keys[id(struct)]

    def is_reported(self, key: str) -> bool:
        """Whether there is a problem of this key or below it, so that what was read is a stand-in."""
        below = (f"{key}.", f"{key}[")
        return any(problem.key == key or problem.key.startswith(below) for problem in self.problems)

    def report(self, key: str, message: str, *, found: object = None, valid: str = "") -> None:
        """Add a problem, unless one is reported of the key already."""
        if not self.is_reported(key):
            self._add(key, message, found, valid)

    def _add(self, key: str, message: str, found: object = None, valid: str = "") -> None:
        self.problems.append(Problem(key, message, "" if found is None else show(found), valid))

    def _convert(self, type_: Any, value: object, key: str) -> Any:
        bare = _bare(type_)
        if _is_table(bare):
            return self._convert_struct(bare, value, key)
        if _is_array(bare):
            return self._convert_array(type_, value, key)
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            valid = describe(type_)
            self._add(key, "wrong value" if valid else str(error), value, valid)
            return _INVALID

    def _convert_struct(self, type_: type[Struct], value: object, key: str) -> Any:
        if not isinstance(value, dict):
            self._add(key, "must be a table", value, describe(type_))
            return _INVALID
        fields = {field.encode_name: field for field in structs.fields(type_)}
        for name in value:
            if name not in fields:
                self._add_unknown(_join(key, name), name, fields)
        values: dict[str, Any] = {}
        complete = self._check_alternatives(type_, value, key)
        for name, field in fields.items():
            where = _join(key, name)
            converted: Any = _INVALID
            if name in value:
                converted = self._convert(field.type, value[name], where)
            elif field.required:
                self._add(where, "is missing", valid=describe(field.type))
            if converted is not _INVALID:
                values[field.name] = converted
            elif field.required:
                complete = False
        return self._build(type_, values, key) if complete else _INVALID

    def _check_alternatives(self, type_: type[Struct], table: Mapping[str, Any], key: str) -> bool:
        """Whether one of each group of keys in the Struct's class variable ``ALTERNATIVES`` is there, and one only."""
        groups: tuple[tuple[str, ...], ...] = getattr(type_, "ALTERNATIVES", ())
        for names in groups:
            there = [name for name in names if name in table]
            valid = f"exactly one of {', '.join(names)}"
            if not there:
                self._add(_join(key, names[0]), "is missing", valid=valid)
            for name in there[1:]:
                self._add(_join(key, name), f"cannot stand beside '{there[0]}'", table[name], valid)
        return all(sum(name in table for name in names) == 1 for names in groups)

    def _build(self, cls: type[Struct], values: Mapping[str, Any], key: str) -> Any:
        try:
            struct = cls(**values)
        except (
            ValueError,
            TypeError,
        ) as error:  # of a __post_init__, the way of a Struct to refuse its values
            self._add(key, str(error))
            return _INVALID
        self._keys[id(struct)] = key
        self._read.append(struct)
        return struct

    def _convert_array(self, type_: Any, value: object, key: str) -> tuple[Any, ...] | list[Any] | _Invalid:
        if not isinstance(value, list):
            self._add(key, "must be an array", value, describe(type_))
            return _INVALID
        bare = _bare(type_)
        item_type = get_args(bare)[0]
        items = [self._convert(item_type, item, f"{key}[{index}]") for index, item in enumerate(value)]
        whole = [item for item in items if item is not _INVALID]
        if not _length_fits(inspect.type_info(type_), len(value)):
            self._add(key, "has the wrong length", value, describe(type_))
            return _INVALID
        if len(whole) < len(items) and not _is_table(_bare(item_type)):
            return _INVALID
        return tuple(whole) if get_origin(bare) is tuple else whole

    def _add_unknown(self, where: str, name: str, fields: Mapping[str, object]) -> None:
        nearest = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        self._add(where, f"unknown key{hint}", valid=", ".join(fields) or "this table takes no key")


def show(value: object) -> str:
    """A value of a TOML document as one line of JSON text, cut if it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _FOUND_MAX_CHARACTERS else text[: _FOUND_MAX_CHARACTERS - 1] + "…"


def describe(type_: Any) -> str:
    """What may stand in a place of this annotated type, in words; ``Meta(description=…)`` has precedence.

    Empty for types that only an adapter of a third party would use.
    """
    return _describe(inspect.type_info(type_))


def _describe(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata():
            description = (info.extra_json_schema or {}).get("description")
            return str(description) if description else _describe(info.type)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            return _describe_number(info)
        case inspect.StrType():
            return "text" if info.pattern is None else f"text that matches {info.pattern}"
        case inspect.LiteralType():
            return "one of " + ", ".join(show(value) for value in info.values)
        case inspect.EnumType():
            return "one of " + ", ".join(show(member.value) for member in info.cls)
        case inspect.UnionType():
            members = [member for member in info.types if not isinstance(member, inspect.NoneType)]
            return " or ".join(_describe(member) for member in members)
        case inspect.VarTupleType() | inspect.ListType():
            least = f" of at least {info.min_length}" if info.min_length else ""
            return f"an array{least}; each {_describe(info.item_type)}"
        case inspect.StructType():
            return f"a table with the keys {', '.join(field.encode_name for field in info.fields)}"
        case inspect.DictType():
            return "a table"
    return ""


def _describe_number(info: inspect.IntType | inspect.FloatType) -> str:
    noun = "a whole number" if isinstance(info, inspect.IntType) else "a number"
    bounds = [
        ("at least", info.ge),
        ("more than", info.gt),
        ("at most", info.le),
        ("less than", info.lt),
    ]
    return ", ".join([noun, *(f"{word} {bound}" for word, bound in bounds if bound is not None)])


def _bare(type_: Any) -> Any:
    """The type below ``Annotated`` and below ``| None``, if one remains."""
    if get_origin(type_) is Annotated:
        return _bare(get_args(type_)[0])
    if get_origin(type_) in (Union, UnionType):
        members = [member for member in get_args(type_) if member is not NoneType]
        return _bare(members[0]) if len(members) == 1 else type_
    return type_


def _is_table(bare: Any) -> bool:
    return isinstance(bare, type) and issubclass(bare, Struct)


def _is_array(bare: Any) -> bool:
    """Whether this is a list, or a tuple of any length."""
    return get_origin(bare) is list or (get_origin(bare) is tuple and get_args(bare)[-1] is Ellipsis)


def _length_fits(info: inspect.Type, length: int) -> bool:
    match info:
        case inspect.Metadata():
            return _length_fits(info.type, length)
        case inspect.VarTupleType() | inspect.ListType():
            return (info.min_length or 0) <= length and (info.max_length is None or length <= info.max_length)
    return True


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
