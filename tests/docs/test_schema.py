"""The published schema is that of the records, and it takes what is written and refuses what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import make_schema
import pytest

from triptych import zoo
from triptych.conformance import certificate, suite
from triptych.conformance.case import conformance_options
from triptych.conformance.compare import Check
from triptych.conformance.conform import Report
from triptych.conformance.long_run import LongRun, PairRun
from triptych.spec import records

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def fits(value: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> bool:
    """Whether a value fits, by the keywords that the schema uses."""
    if "$ref" in schema:
        return fits(value, definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    if "anyOf" in schema:
        return any(fits(value, one, definitions) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if not isinstance(value, TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        return False
    if isinstance(value, list):
        parts = schema.get("prefixItems") or [schema["items"]] * len(value)
        return len(parts) == len(value) and all(map(fits, value, parts, [definitions] * len(value)))
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema["additionalProperties"]
        whole = set(schema.get("required", ())) <= value.keys() and (others or value.keys() <= known.keys())
        return whole and all(fits(item, known.get(name, others), definitions) for name, item in value.items())
    return True


@cache
def schema() -> dict[str, Any]:
    return json.loads(make_schema.FILE.read_text(encoding="utf-8"))


@cache
def written() -> str:
    """The certificate of networks with many kinds of layers, as `conform` writes it; nothing is run for it."""
    names = ("vgg11_bn", "googlenet", "mobilenet_v2" if "mobilenet_v2" in zoo.registry() else "lenet")
    options = [conformance_options(name) for name in names]
    checks = (Check("update", "a", 0.5, 1.0, 1.0), Check("update", "b", None, 0.0, 0.0, "is missing"))
    reports = (Report(("torch",), "fp64", checks, {"tf32": False, "threads": 2, "mode": "highest", "other": None}),)
    long_run = LongRun(4, {"torch": checks}, (PairRun("torch", "jax", "chaos", 1.5, None, 3),))
    verdicts = [
        suite.Verdict(zoo.build_with(name, chosen), reports, (), {"jax": "not asked for"}, "a", "b", long_run)
        for name, chosen in zip(names, options, strict=True)
    ]
    chosen: list[Any] = [*options[:-1], None]
    made = certificate.make(verdicts, chosen, [], precisions=["fp64"], seed=0, device="cpu")
    return records.write(made)


def test_the_published_schema_is_that_of_the_records() -> None:
    assert make_schema.FILE.read_text(encoding="utf-8") == make_schema.text(), "run: python docs/make_schema.py"


def test_what_is_written_fits() -> None:
    assert fits(json.loads(written()), schema(), schema()["$defs"])


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("seed"),
        lambda value: value.update(more=1),
        lambda value: value.update(version=2),
        lambda value: value.update(precisions=["fp8"]),
        lambda value: value["architectures"][0].update(options=[]),
        lambda value: value["architectures"][0]["verdict"]["architecture"]["layers"][0].update(record="Cnv"),
        lambda value: value["architectures"][0]["verdict"]["architecture"].update(input=[1, 2]),
        lambda value: value["architectures"][0]["verdict"]["reports"][0]["checks"][0].pop("budget"),
        lambda value: value["architectures"][0]["verdict"]["trajectory"]["pairs"][0].update(verdict="fine"),
    ],
)
def test_what_nobody_writes_does_not_fit(change: Callable[[Any], Any]) -> None:
    value = json.loads(written())
    change(value)
    assert not fits(value, schema(), schema()["$defs"])
