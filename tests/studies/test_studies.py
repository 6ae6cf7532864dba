"""The studies that need no training: their numbers against the papers' and against counts made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import table_of
from triptych import zoo
from triptych.__main__ import main
from triptych.spec.analysis import totals
from triptych.studies import Counted, Table, registry
from triptych.studies.kernels import row
from triptych.studies.parameters import NETWORKS, STUDY, network, shares, without_global_pool, without_reductions


@pytest.mark.parametrize(
    ("kernel", "depth", "field", "per_square"), [(3, 3, 7, 27), (7, 1, 7, 49), (3, 2, 5, 18), (11, 1, 11, 121)]
)
def test_a_stack_of_3x3_sees_as_far_with_fewer_parameters(kernel: int, depth: int, field: int, per_square: int) -> None:
    _, seen, nonlinearities, weights, _, macs = row(kernel, depth).values()
    assert (seen, nonlinearities, weights) == (field, depth, per_square)
    assert macs == per_square * 64 * 64  # stride 1, padded: every pixel costs one multiplication per weight


def test_the_stacks_of_the_study_see_as_far_as_the_kernels() -> None:
    result = registry()["kernels"].run()
    assert [row[1] for row in result.tables[0].rows] == [5, 5, 7, 7, 11, 11]
    assert "with 27C^2 parameters for 49C^2 (45% fewer) and 3 nonlinearities for 1." in result.findings[1]


def test_numbers_are_printed_with_separators_and_few_digits() -> None:
    assert Table("", ("", "", ""), ((1234567, 0.12345, "x"),)).text() == [("1,234,567", "0.123", "x")]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_groups_hold_every_parameter_and_operation_once(name: str) -> None:
    groups, whole = shares(network(name)).values(), totals(network(name))
    assert sum(parameters for parameters, _ in groups) == whole.parameters
    assert sum(macs for _, macs in groups) == whole.macs


def test_the_dense_layers_of_vgg16_hold_nine_tenths() -> None:
    groups = shares(zoo.build("vgg16"))
    assert groups["dense, first"][0] == (512 * 7 * 7 + 1) * 4096
    assert groups["dense, others"][0] == (4096 + 1) * (4096 + 1000)


def test_a_dense_layer_for_global_pooling_sees_the_whole_map() -> None:
    layers = without_global_pool(network("googlenet").layers)
    assert [layer.name for layer in layers][-2:] == ["flatten", "dense"]
    changed = STUDY.run()
    rows = table_of(changed, "What 1x1 convolutions and global average pooling remove").rows
    googlenet = {str(r[1]): r[2:] for r in rows if r[0] == "googlenet"}
    base, dense = googlenet["as it is"], googlenet["dense layer for global average pooling"]
    assert dense[0] - base[0] == dense[1] - base[1] == 1024 * 48 * 1000  # a parameter is an operation there
    assert dense[2:] == (dense[0] / base[0], dense[1] / base[1])
    for name, *counts, whole in table_of(changed, "Parameters by kind of layer, 3x224x224, 1000 classes").rows:
        assert sum(counts) == whole == totals(network(name)).parameters
        assert sum(row[2] for row in table_of(changed, f"{name}, group by group").rows) == whole
    assert "vgg16: 89% of the parameters are in dense layers." in changed.findings  # 123,642,856 of 138,357,544


def test_a_counting_study_takes_networks_input_and_classes(
    call: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call("study", "parameters", "--arch", "lenet,vgg11", "--input", "1x32x32", "--classes", "5", "--json", "p.json")
    found = json.loads((tmp_path / "p.json").read_text())["tables"]
    assert [row[-1] for row in found[0]["rows"]] == [
        totals(zoo.build(name, input=(1, 32, 32), classes=5)).parameters for name in ("lenet", "vgg11")
    ]
    assert found[0]["title"] == "Parameters by kind of layer, 1x32x32, 5 classes"
    call("study", "parameters", "--classes", "7", "--json", "q.json")
    assert "7 classes" in json.loads((tmp_path / "q.json").read_text())["tables"][0]["title"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["kernels", "--classes", "10"], "study 'kernels' only counts; it takes no --classes"),
        (["parameters", "--epochs", "3"], "it takes no --epochs"),
        (["parameters", "--backend", "torch"], "it takes no --backend"),
        (["traps", "--arch", "vgg11"], "it takes no --arch"),
    ],
)
def test_what_a_counting_study_does_not_take_is_refused(
    wrong: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["study", *wrong])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_without_reductions_the_larger_kernels_see_every_channel() -> None:
    block = next(layer for layer in without_reductions(network("googlenet").layers) if layer.name == "inception3a")
    kernels = [next(getattr(layer, "kernel", None) for layer in branch.layers) for branch in block.branches]
    assert kernels == [(1, 1), (3, 3), (5, 5), (3, 3)]  # the last is the pooling branch, which keeps its 1x1


@pytest.mark.parametrize("name", [name for name, study in registry().items() if isinstance(study, Counted)])
def test_every_study_answers_with_a_table_a_figure_and_sentences(name: str) -> None:
    result = registry()[name].run()
    assert result.tables
    assert result.findings
    assert all(svg.startswith("<svg") for _, svg in result.figures)
    assert all(len(row) == len(table.columns) for table in result.tables for row in table.rows)
