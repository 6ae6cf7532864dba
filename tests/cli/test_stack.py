"""`summary --stack` and `--conv-arch`: layers as one types them."""

from __future__ import annotations

import json

import pytest

from marks import needs_backend
from triptych import zoo
from triptych.__main__ import main
from triptych.cli.networks import rows_of
from triptych.spec.analysis import analyse, totals
from triptych.spec.stack import parse
from triptych.training.recipe import Recipe
from triptych.zoo import Options
from triptych.zoo.vgg import of_conv_arch


def test_fields_and_parameters_are_those_that_one_computes_by_hand() -> None:
    """Three 3x3 see as much as one 7x7, and have 27 of 49 parts of its weights."""
    three, one = parse("conv3 valid, conv3 valid, conv3 valid", (8, 32, 32)), parse("conv7 valid", (8, 32, 32))
    assert [info.receptive_field[0] for info in analyse(three)] == [3, 5, 7]
    assert analyse(one)[-1].receptive_field == analyse(three)[-1].receptive_field
    assert analyse(one)[-1].output == analyse(three)[-1].output == (8, 26, 26)
    assert totals(three).parameters == 3 * (9 * 64 + 8)
    assert totals(one).parameters == 49 * 64 + 8


def test_words_after_a_layer() -> None:
    infos = analyse(parse("conv3, conv5 valid s2 c16, pool3 s2, avg2, CONV1 C4", (3, 64, 64)))
    assert [info.output for info in infos] == [(3, 64, 64), (16, 30, 30), (16, 14, 14), (16, 7, 7), (4, 7, 7)]
    assert [info.receptive_field[0] for info in infos] == [3, 7, 11, 15, 15]
    assert [info.stride[0] for info in infos] == [1, 2, 4, 8, 8]


def test_the_command_prints_the_table(call) -> None:
    out = call("summary", "--stack", "conv3 valid, conv3 valid s2, pool2", "--input", "64x32x32")
    assert "64x7x7" in out
    assert "73,856" in out
    known = json.loads(call("summary", "--stack", "conv3 valid, pool2", "--resolution", "16", "--json"))
    assert [layer["output"] for layer in known["layers"]] == [[3, 14, 14], [3, 7, 7]]


def test_a_table_of_convolutions_is_a_vgg() -> None:
    options = Options().filled(10, (1, 224, 224))
    typed = of_conv_arch(rows_of("1x64,1x128,2x256,2x512,2x512"), options)
    assert typed.layers == zoo.build("vgg11", input=(1, 224, 224), classes=10).layers


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "one of them"),
        (["vgg11", "--stack", "conv3"], "one of them"),
        (["--stack", ","], "names no layers"),
        (["--stack", "conv"], "is no layer"),
        (["--stack", "conv0"], "is no layer"),
        (["--stack", "pool2 c4"], "'c4' of 'pool2 c4' is not known"),
        (["--stack", "conv3 s0"], "'s0'"),
        (["--stack", "conv9 valid", "--input", "3x4x4"], "conv1"),
        (["--stack", "conv3", "--classes", "5"], "nothing else"),
        (["--conv-arch", "64x"], "is not like"),
        (["--conv-arch", "1x64," * 40], "is not like"),
    ],
)
def test_bad_use_is_one_line(words: list[str], told: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["summary", *words])
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


@needs_backend
def test_predict_tells_the_best_classes_and_in_json_all(here, drawn_run, call) -> None:
    folder = drawn_run("run", Recipe("test", architecture="lenet", data="synthetic", epochs=1))
    table = call("predict", folder, "--first", "2", "--top", "3")
    assert table.count("pattern") >= 6
    known = json.loads(call("predict", folder, "--first", "2", "--top", "3", "--json"))
    for one in known:
        every = one["probabilities"]
        assert len(every) == 10
        assert sum(every.values()) == pytest.approx(1)
        best = sorted(every, key=every.__getitem__, reverse=True)[:3]
        assert [name for name, _ in one["top"]] == best
        assert (one["predicted"], one["probability"]) == (best[0], every[best[0]])
