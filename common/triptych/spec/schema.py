"""A record's form in JSON as a JSON schema (draft 2020-12), made of the same type hints that read and write it."""

import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from triptych.spec import records

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN: dict[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number", types.NoneType: "null"}


def schema(kind: type, title: str) -> Schema:
    """The schema of a record and of all that it holds; each kind of record is defined once, under `$defs`."""
    definitions: Schema = {}
    top = _of(kind, definitions)
    ordered = {name: definitions[name] for name in sorted(definitions)}
    return {"$schema": DIALECT, "title": title, **top, "$defs": ordered}


def _of(hint: Any, definitions: Schema) -> Schema:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(one, definitions) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    if origin is tuple:
        return _tuple(arguments, definitions)
    if is_dataclass(hint):
        return _record(hint, definitions)
    return {"type": _PLAIN[hint]}


def _tuple(arguments: tuple[Any, ...], definitions: Schema) -> Schema:
    if arguments[-1] is Ellipsis:
        return {"type": "array", "items": _of(arguments[0], definitions)}
    parts = [_of(one, definitions) for one in arguments]
    return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}


def _record(kind: Any, definitions: Schema) -> Schema:
    """A reference; the definition has every field, what follows from the rest, and the record's name where it is
    written."""
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}  # while it is made: a spec's records hold each other
        hints, tagged = get_type_hints(kind), records.RECORDS.get(name) is kind
        properties: Schema = {"record": {"const": name}} if tagged else {}
        properties |= {field.name: _of(hints[field.name], definitions) for field in fields(kind)}
        derived = {extra: _derived(kind, extra, definitions) for extra in getattr(kind, "DERIVED", ())}
        definitions[name] = {
            "type": "object",
            "description": " ".join((kind.__doc__ or "").split()),
            "properties": properties | derived,
            "required": [*properties, *derived],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}


def _derived(kind: Any, name: str, definitions: Schema) -> Schema:
    """What follows from the rest; a number may be infinite, which JSON has not."""
    made = _of(get_type_hints(getattr(kind, name).fget)["return"], definitions)
    return {"anyOf": [made, {"type": "null"}]} if made == {"type": "number"} else made
