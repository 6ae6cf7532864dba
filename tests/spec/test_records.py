"""Hashes of specs and arrays: the same everywhere, and of everything that they should see."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

from helpers import python
from triptych import zoo
from triptych.conformance import verification
from triptych.conformance.case import conformance_architecture, make_case
from triptych.conformance.inputs import everything
from triptych.spec import records
from triptych.spec.layers import Architecture, Conv, Dense, Dropout, Flatten, Initializer, ReLU
from triptych.utils.errors import TriptychError

ZOO = [conformance_architecture(name) for name in zoo.registry()]


@pytest.mark.parametrize("architecture", ZOO, ids=lambda architecture: architecture.name)
def test_a_spec_survives_json(architecture: Architecture) -> None:
    text = json.dumps(records.encode(architecture))
    again = records.decode(json.loads(text), Architecture)
    assert again == architecture
    assert records.digest(again) == records.digest(architecture)


def test_the_hash_of_a_spec_is_that_of_its_canonical_json() -> None:
    layers = (Conv("conv", 3, (3, 3)), ReLU("relu"), Dropout("drop", 0.5), Flatten("flat"), Dense("dense", 3))
    architecture = Architecture("tiny", (2, 6, 9), 3, layers, Initializer("normal", 0.01), "nowhere")
    conv = (
        '"bias":true,"channels":3,"dilation":[1,1],"groups":1,"kernel":[3,3],"name":"conv","padding":[0,0],"record":"Conv",'
        '"stride":[1,1]'
    )
    text = (
        '{"classes":3,"initializer":{"name":"normal","record":"Initializer","value":0.01},"input":[2,6,9],"layers":[{'
        + conv
        + '},{"name":"relu","record":"ReLU"},{"name":"drop","rate":0.5,"record":"Dropout"},{"name":"flat","record":'
        '"Flatten"},{"bias":true,"name":"dense","record":"Dense","units":3}],"name":"tiny","record":"Architecture",'
        '"source":"nowhere"}'
    )
    assert records.canonical(architecture) == text
    assert records.digest(architecture) == hashlib.sha256(text.encode()).hexdigest()
    whole = replace(architecture, layers=(*layers[:2], Dropout("drop", 0), *layers[3:]))
    real = replace(architecture, layers=(*layers[:2], Dropout("drop", 0.0), *layers[3:]))
    assert records.digest(whole) == records.digest(real)  # an int in a float field is the same number


def test_hashes_are_the_same_in_every_process() -> None:
    code = (
        "from triptych.spec import records\nfrom triptych.conformance.case import *\n"
        "from triptych.conformance.inputs import everything\n"
        "case = make_case(conformance_architecture('lenet'), 3)\nprint(records.digest(case.architecture), "
        "records.arrays_digest(case.parameters), records.arrays_digest(everything(case)))"
    )
    run = python(code, PYTHONHASHSEED="123")
    case = make_case(conformance_architecture("lenet"), 3)
    arrays = (records.arrays_digest(case.parameters), records.arrays_digest(everything(case)))
    assert run.stdout.split() == [records.digest(case.architecture), *arrays]


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}x"
    return (value[0] + 1, *value[1:]) if isinstance(value, tuple) else value + 1


def test_every_field_of_every_record_is_in_the_hash_and_is_named() -> None:
    seen = set()
    for architecture in ZOO:
        for index, layer in enumerate(architecture.layers):
            for field in (f for f in fields(layer) if f.name not in ("layers", "branches", "body", "shortcut")):
                if (type(layer), field.name) in seen:
                    continue
                seen.add((type(layer), field.name))
                other = replace(layer, **{field.name: changed(getattr(layer, field.name))})
                layers = (*architecture.layers[:index], other, *architecture.layers[index + 1 :])
                planted = replace(architecture, layers=layers)
                assert records.digest(planted) != records.digest(architecture)
                (line,) = verification.spec_differences(planted, architecture)
                assert f"'{layer.name}" in line
                if field.name != "name":
                    assert f"{field.name} is {getattr(other, field.name)} in the certificate, " in line
    assert len(seen) > 30


@dataclass(frozen=True)
class Measured:
    DERIVED = ("share",)

    value: float
    most: float

    @property
    def share(self) -> float:
        return self.value / self.most if self.most else float("inf")


def test_what_a_record_says_of_itself_is_written_and_held_against_it() -> None:
    assert records.encode(Measured(1, 4)) == {"value": 1.0, "most": 4.0, "share": 0.25}
    assert records.encode(Measured(1, 0))["share"] is None  # JSON has no infinity
    assert records.decode({"value": 1.0, "most": 4.0, "share": 0.25}, Measured) == Measured(1, 4)
    for share, words in ((0.5, "share: 0.5 is not what follows from the rest: 0.25"), (None, "share: null is not")):
        with pytest.raises(TriptychError, match=words):
            records.decode({"value": 1.0, "most": 4.0, "share": share}, Measured)
    with pytest.raises(TriptychError, match="missing or unknown in Measured: 'share'"):
        records.decode({"value": 1.0, "most": 4.0}, Measured)


def test_a_registered_record_is_told_from_others_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RECORDS", dict(records.RECORDS))
    records.register(Measured)
    records.register(Measured)
    assert records.encode(Measured(1, 4))["record"] == "Measured"
    assert records.decode(records.encode(Measured(1, 4)), Measured) == Measured(1, 4)
    with pytest.raises(ValueError, match="two records of the name Conv"):
        records.register(type("Conv", (), {}))


def test_a_file_has_every_innermost_object_on_a_line() -> None:
    text = records.write({"checks": [Measured(1, 4), Measured(2, 4)]})
    assert text.splitlines()[2].strip() == '{ "value": 1.0, "most": 4.0, "share": 0.25 },'
    assert records.parse(text) == {"checks": records.encode([Measured(1, 4), Measured(2, 4)])}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting"),
        ("[1e999]", "1e999 is no number"),
        ("[NaN]", "NaN is no number"),
        ('{"a": 1, "a": 1}', "a name is there twice"),
        ("[" * 100_000, "too deep"),
    ],
)
def test_what_is_not_json_is_a_value_error(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        records.parse(text)


def test_the_hash_of_arrays_sees_names_types_shapes_and_bytes() -> None:
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}
    digest = records.arrays_digest(values)
    same = {"b": values["b"], "a": np.asfortranarray(values["a"]).astype(">f4")}
    assert records.arrays_digest(same) == digest
    ulp = values["a"].copy()
    ulp[1, 2] = np.nextafter(ulp[1, 2], np.float32(9))
    others: list[dict[str, np.ndarray]] = [
        {"a": values["a"]},
        {"a": values["a"], "c": values["b"]},
        values | {"a": values["a"].reshape(3, 2)},
        values | {"a": values["a"].astype(np.float64)},
        values | {"a": values["a"].view(np.int32)},
        values | {"a": ulp},
        values | {"a": values["a"].T.reshape(2, 3)},
    ]
    digests = {records.arrays_digest(other) for other in others}
    assert len(digests | {digest}) == len(others) + 1
