"""The table of MXNet's operators is what the installed MXNet says, and values are parsed as MXNet parses them."""

from __future__ import annotations

import ctypes
import math
import re
from typing import Any

import pytest

from triptych.backend import registry
from triptych.importers.mxnet_operators import ALIASES, OPERATORS
from triptych.importers.mxnet_values import (
    REQUIRED,
    Attribute,
    PerAxis,
    parse_boolean,
    parse_double,
    parse_integer,
    parse_shape,
    parse_single,
)

needs_mxnet = pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")

# What MXNet 1.9.1 on a CPU does not have: names of 2.0 and of builds with cuDNN.
ELSEWHERE = {"_npi_copy", "_npi_transpose", "_npi_squeeze", "_npi_sum", "_npi_max", "_npx_pad", "CuDNNBatchNorm"}
NEWER_ATTRIBUTES = {("Pooling", "output_size"), ("_npi_concatenate", "axis")}  # the second it does not tell of
NEWER_OPTIONAL = {("Concat", "dim"), ("_npi_concatenate", "dim")}
# MXNet lists these inputs as one, or not at all.
UNLISTED_INPUTS = {"Crop", "BatchNorm_v1"}


@pytest.fixture(scope="module")
def described() -> Any:
    """(MXNet's own name, description of each input and attribute, attribute that counts the inputs) of an operator."""
    registry.load("mxnet")
    from mxnet.base import _LIB, check_call

    def describe(operator: str) -> tuple[str, dict[str, str], str]:
        handle, name, text, number = ctypes.c_void_p(), ctypes.c_char_p(), ctypes.c_char_p(), ctypes.c_uint()
        names, types, texts = (ctypes.POINTER(ctypes.c_char_p)() for _ in range(3))
        counted, returned = ctypes.c_char_p(), ctypes.c_char_p()
        check_call(_LIB.NNGetOpHandle(operator.encode(), ctypes.byref(handle)))
        out = (name, text, number, names, types, texts, counted, returned)
        check_call(_LIB.MXSymbolGetAtomicSymbolInfo(handle, *map(ctypes.byref, out)))
        listed = {names[i].decode(): types[i].decode() for i in range(number.value)}
        return name.value.decode(), listed, counted.value.decode()

    return describe


def as_mxnet_describes_it(text: str) -> tuple[str, object, set[str]]:
    """(kind, default, choices) of a description such as "float, optional, default=0.25"."""
    kinds = {"boolean": "boolean", "int": "integer", "float": "single", "double": "double", "Shape": "shape"}
    kinds |= {"string": "choice", "long": "integer"}
    choices = set(re.findall(r"'(\w+)'", text.split("}")[0])) if text.startswith("{") else set()
    kind = "choice" if choices else kinds[re.match(r"\w+", text)[0]]
    if "required" in text:
        return kind, REQUIRED, choices
    default = text.partition("default=")[2].strip("'")
    return kind, None if default == "None" else Attribute(kind).parse(default), choices  # type: ignore[arg-type]


@needs_mxnet
@pytest.mark.parametrize("operator", sorted(OPERATORS.keys() - ELSEWHERE))
def test_an_operator_is_what_mxnet_says_it_is(operator: str, described: Any) -> None:
    name, listed, counted = described(operator)
    assert name == operator, "an alias stands among the operators"
    entry = OPERATORS[operator]
    assert entry.counted == counted or operator == "Crop"
    inputs = [key for key, text in listed.items() if "Symbol" in text]
    assert counted or operator in UNLISTED_INPUTS or tuple(inputs) == entry.inputs
    for key, text in listed.items():
        if key in inputs or entry.attributes[key].kind == "ignored":
            continue
        kind, default, choices = as_mxnet_describes_it(text)
        attribute = entry.attributes[key]
        assert attribute.kind == kind, key
        assert attribute.optional == ("None" in text or (operator, key) in NEWER_OPTIONAL), key
        assert choices <= set(attribute.choices), key
        if isinstance(attribute.default, PerAxis):
            assert default == (), key
        elif isinstance(default, float):
            assert attribute.default == pytest.approx(default, rel=1e-8), key  # printed with nine digits
        else:
            assert attribute.default == default, key
    unknown = {(operator, key) for key in entry.attributes.keys() - listed.keys() - {entry.counted}}
    assert unknown <= NEWER_ATTRIBUTES


@needs_mxnet
@pytest.mark.parametrize("alias", sorted(ALIASES.keys() - ELSEWHERE))
def test_an_alias_is_the_same_operator_for_mxnet(alias: str, described: Any) -> None:
    assert described(alias)[0] == ALIASES[alias]


def test_every_alias_leads_to_an_operator_and_hides_none() -> None:
    assert set(ALIASES.values()) <= OPERATORS.keys()
    assert not ALIASES.keys() & OPERATORS.keys()


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_the_entries_of_the_table_belong_together(operator: Any) -> None:
    named = {attribute for attribute, _ in operator.present.values()}
    named |= {operator.counted} - {""} | ({operator.outputs} if isinstance(operator.outputs, str) else set())
    assert named <= operator.attributes.keys()
    assert operator.present.keys() | set(operator.auxiliary) <= set(operator.inputs)
    for attribute in operator.attributes.values():
        assert not isinstance(attribute.default, PerAxis) or attribute.default.like in operator.attributes
        assert attribute.kind != "choice" or attribute.default in (*attribute.choices, REQUIRED, None)
        if attribute.kind == "single" and attribute.default is not REQUIRED:
            assert attribute.default == parse_single(repr(attribute.default))


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_boolean, "True", True),
        (parse_boolean, "0", False),
        (parse_integer, " 64 ", 64),
        (parse_integer, "-1L", -1),
        (parse_double, "1e-05", 1e-5),
        (parse_double, "2.0f", 2.0),
        (parse_double, "inf", math.inf),
        (parse_double, ".5", 0.5),
        (parse_single, "0.1", 0.10000000149011612),
        (parse_single, "-INF", -math.inf),
        (parse_shape, "(3, 3)", (3, 3)),
        (parse_shape, "[3,3]", (3, 3)),
        (parse_shape, "(3L, 3L)", (3, 3)),
        (parse_shape, "(2,)", (2,)),
        (parse_shape, "2", (2,)),
        (parse_shape, "()", ()),
        (parse_shape, "[]", ()),
        (parse_shape, "(None, 0, -1)", (None, 0, -1)),
    ],
)
def test_values_are_parsed_as_mxnet_writes_them(parse: Any, text: str, value: object) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (parse_boolean, ["", "yes", "2", "None"]),
        (parse_integer, ["", "1.0", "1" * 19, "1_000", "٣", "None", "--1"]),
        (parse_double, ["", "nan", "1e999", "1_0.0", "0x10", "1" * 500, "e5", "infx"]),
        (parse_single, ["1e39", "nan"]),
        (parse_shape, ["", "(3", "3)", "(3, 3]", "(,)", "(3,,3)", "((3, 3))", "(1.5,)", f"({'1,' * 40})", "(" * 9999]),
    ],
)
def test_what_is_no_value_is_refused(parse: Any, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(ValueError, match="expected"):
            parse(text)
