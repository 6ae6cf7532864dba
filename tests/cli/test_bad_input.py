"""Bad input: exit status 2, one line that says what is wrong, and nothing lost or left behind."""

from __future__ import annotations

import gzip
import importlib.util
import os
import pickle
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from marks import REAL_SETS, needs_backend, needs_set
from triptych import zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.backend.execution import Execution
from triptych.conformance import suite
from triptych.data import fashion_mnist
from triptych.studies import runner
from triptych.training import loop, run_folder
from triptych.training.recipe import Recipe

pytestmark = needs_backend  # most commands ask for the backend first
BACKENDS = registry.installed()
LENET = ("train", "--arch", "lenet", "--data", "synthetic", "--resolution", "28")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Every test in an empty folder, so that what it leaves behind can be seen."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "cache"))
    return folder


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    """What should have been refused fails at once, not after hours of training."""

    def begun(*_, **__):
        pytest.fail("the work was begun")

    monkeypatch.setattr(loop, "fit", begun)
    monkeypatch.setattr(suite, "run", begun)


@pytest.fixture
def run(here, drawn_run):
    """A run folder of one epoch: nothing has to be trained for it."""
    recipe = Recipe("test", architecture="lenet", data="synthetic", epochs=1)
    return drawn_run("here/run", recipe)


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refuse(here, capsys):
    """`refuse(arguments, fragment, ...)`: the command ends with 2 and one line that holds all fragments."""

    def refuse(*arguments_and_fragments):
        arguments, *fragments = arguments_and_fragments
        before = contents(here)
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (stopped.value.code, out) == (2, ""), err
        assert err.startswith("triptych: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        for fragment in fragments:
            assert fragment in err
        assert contents(here) == before
        return err

    return refuse


def case(line, *fragments):
    return pytest.param(line.split(), fragments, id=line)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        # Names, with the nearest match or, where none is near, all there are.
        case("sumary vgg11", '"summary"'),
        case("summary vgg10", "unknown architecture 'vgg10'", "did you mean 'vgg1"),
        case("summary letnet", "did you mean 'lenet'?"),
        *(
            case(f"summary lenet {two}", "give one of --blocks, --spec and --json")
            for two in ("--blocks --json", "--spec --json x.json", "--spec --blocks")
        ),
        case("train --backend troch", "unknown backend 'troch'", "did you mean 'torch'?"),
        case("train --backend tensorflow", "known: jax, mxnet, torch"),
        case("compare --backends torch,jaxx", "unknown backend 'jaxx'", "did you mean 'jax'?"),
        case("compare --backends ,", "',' names no backend"),
        case("study shallow --backend ,", "',' names no backend"),
        case("train --schedule constant:x=1", "constant has no settings, and 'x=1' was given"),
        case("train --data synthetic --tensorboard /proc/no/folder", "--tensorboard /proc/no/folder cannot be written"),
        case("train --data sinthetic", "unknown data set 'sinthetic'", "did you mean 'synthetic'?"),
        case("train --data no/such", "there is no folder 'no/such'"),
        case("train --recipe d2l-vg", "unknown recipe 'd2l-vg'", "did you mean 'd2l-vgg'?"),
        case("train --precision fp23", "unknown precision 'fp23'", "did you mean 'fp32'?"),
        case("conform --precision int8", "cannot be judged", "fp64, fp32, bf16, fp16, tf32"),
        case("conform --precision tf32", "a CPU has no such products", "--device"),
        case("conform --precision bf16 --certificate a.json", "--certificate and --html are of all levels"),
        case("summary vgg11 --head smal", "unknown head of 'vgg11' 'smal'", "did you mean 'small'?"),
        case("summary lenet --head small", "'lenet' has one head only"),
        case("train --init xavier_unifrom", "unknown initializer", "did you mean 'xavier_uniform'?"),
        case("train --init normal:much", "'much' is not a number"),
        case("train --init normal:nan", "initializer 'normal:nan'"),
        # Sizes.
        case("summary vgg11 --resolution 31", "layer 'block5.pool'", "the smallest resolution that works is 32x32"),
        case("compare --resolution 16", "layer 'block5.pool'", "32x32"),
        case("summary lenet --input 1x9x40", "layer 'conv2'", "smallest resolution"),
        case("summary vgg11 --width-ratio 65", "leaves no channels in layer 'block1.conv1', which has 64"),
        *(case(f"summary vgg11 --width-ratio {r}", "--width-ratio", "must be above 0") for r in ("0", "-2", "nan")),
        case("summary vgg11 --width-ratio inf", "leaves no channels"),
        *(case(f"summary vgg11 --input {s}", f"'{s}' is not CxHxW") for s in ("1x2", "axbxc", "1x-8x8", "1x8x8x8")),
        case("summary vgg11 --input 0x8x8", "must be at least 1"),
        case("summary vgg11 --input 1x32x32 --resolution 32", "not both"),
        case("summary vgg11 --resolution 0", "must be at least 1"),
        case("summary vgg11 --classes 0", "--classes 0 must be at least 1"),
        case("summary vgg11 --classes 2.5", "--classes '2.5' is not a whole number"),
        case("summary vgg11 --dense-width -1", "--dense-width -1 must be at least 1"),
        case("summary vgg11 vgg13", "vgg13"),
        case("summary", "give an architecture, or --conv-arch, or --stack"),
        case("conform --arch lenet, --backends torch", "unknown architecture ''"),
        case("conform --all --arch lenet", "not both"),
        case("train --data synthetic --classes 9", "--classes 9 is less than the 10 classes of 'synthetic'"),
        # Numbers.
        *(case(f"train --epochs {n}", f"--epochs {n} must be at least 1") for n in (-1, 0)),
        case("train --epochs 1.5", "--epochs '1.5' is not a whole number"),
        *(case(f"train --batch-size {n}", f"--batch-size {n} must be at least 1") for n in (-3, 0)),
        *(case(f"train --learning-rate {x}", "--learning-rate", "at least 0") for x in ("-1", "nan", "inf")),
        case("train --learning-rate fast", '"fast"'),
        *(case(f"train --momentum {x}", "--momentum", "below 1") for x in ("-0.1", "nan", "1")),
        *(case(f"train --weight-decay {x}", "--weight-decay", "at least 0") for x in ("-1", "nan", "inf")),
        case("train --log-every 0", "--log-every 0 must be at least 1"),
        case("train --schedule cosin", "unknown schedule 'cosin'", "did you mean 'cosine'?"),
        case("train --schedule step:every=0", "--schedule step: every 0 must be at least 1"),
        case("train --schedule one-cycle --momentum 0.9", "--momentum", "high_momentum"),
        case("train --recipe ascend-cifar10 --momentum 0.9", "--momentum", "high_momentum"),
        case("conform --seed one", "--seed 'one' is not a whole number"),
        # Files.
        case("evaluate nothing", "there is no run folder or model file nothing"),
        case("evaluate .", "is not a run folder", "recipe.json"),
        case("predict . --first 1", "is not a run folder"),
        case("train --resume .", "is not a run folder"),
        case("train --resume nothing", "nothing is not a run folder"),
        case("train --resume nothing --out new", "--out or --resume, not both"),
        case("train --resume nothing --recipe d2l-lenet", "--recipe or --resume, not both"),
        case("summary lenet --json=.", "--json . is a folder"),
        case("conform --arch lenet --json /proc/x.json", "--json /proc/x.json cannot be written"),
        case("conform --arch lenet --certificate x --html ./x", "must be different files"),
        case("conform --arch lenet --certificate .", "--certificate . is a folder"),
        case("conform --arch lenet --certificate /proc/x", "--certificate /proc/x cannot be written"),
        case("conform --arch lenet --html /proc/x", "--html /proc/x cannot be written"),
        case("verify nothing", "certificate nothing cannot be read: No such file"),
    ],
)
def test_bad_usage(arguments, fragments, refuse):
    refuse(arguments, *fragments)


@pytest.mark.parametrize("name", registry.BACKENDS)
def test_a_framework_that_is_not_installed(name, refuse, monkeypatch):
    entry, find = registry.BACKENDS[name], importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda p, *rest: None if p == entry.requires else find(p, *rest))
    way_out = f"pip install 'triptych[{entry.extra}]'"
    for arguments in ((*LENET, "--backend", name), ("compare", "--backends", name)):
        refuse(arguments, f"backend '{name}' needs the package '{entry.requires}', which is not installed", way_out)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    refuse(LENET, "no framework is installed", "pip install")


@pytest.mark.parametrize("device", ["cuda:7", "npu", "nonsense", "cpu:x", ""])
@pytest.mark.parametrize("name", BACKENDS)
def test_a_device_that_is_not_there(name, device, refuse):
    refuse((*LENET, "--backend", name, "--device", device), f"backend '{name}' has no device '{device}' here (cpu: ")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_precision_that_a_backend_has_not(name, refuse):
    if name == "mxnet":
        refuse((*LENET, "--backend", name, "--precision", "bf16"), "backend 'mxnet' has no precision 'bf16'", "fp32")
    else:
        registry.load(name).build(zoo.build("lenet"), execution=Execution("bf16"))


@pytest.mark.skipif("mxnet" not in BACKENDS, reason="the backend that has the fewest precisions is not installed")
def test_a_runs_own_precision_that_a_backend_has_not_is_said_before_the_data(drawn_run, refuse):
    run = drawn_run("here/run", Recipe("test", architecture="lenet", data="synthetic", epochs=1, precision="bf16"))
    for command in ("evaluate", "predict --first 1"):
        arguments = (*command.split(), run, "--backend", "mxnet", "--data", "nothing")
        refuse(arguments, "backend 'mxnet' has no precision 'bf16'")


# --- --out -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [LENET, ("compare", *LENET[1:])], ids=["train", "compare"])
def test_an_output_folder_in_use_or_not_to_be_written(command, here, refuse):
    (here / "file").write_text("mine")
    (here / "used").mkdir()
    (here / "used" / "thesis.txt").write_text("mine")
    refuse((*command, "--out", "file"), "--out file is already used")
    refuse((*command, "--out", "used"), "--out used is already used")
    refuse((*command, "--out", "file/below"), "--out file/below cannot be written: Not a directory")
    refuse((*command, "--out", "/proc/run"), "--out /proc/run cannot be written")


WRITES = [LENET, ("compare", *LENET[1:]), ("study", "depth", "--quick"), ("study", "traps")]


@pytest.mark.parametrize("command", WRITES, ids=" ".join)
def test_an_output_folder_that_another_process_writes(command, here, refuse, monkeypatch):
    with run_folder.own(here / "out"):
        refuse((*command, "--out", "out"), f"out is in use by process {os.getpid()}; wait for its end")
        monkeypatch.setattr(runner, "holds", lambda *_: True)  # a study that has been begun goes on alone, too
        refuse((*command, "--out", "out"), f"out is in use by process {os.getpid()}; wait for its end")


def test_a_lock_is_not_made_through_a_link(here, refuse):
    (here / "out").mkdir()
    (here / "mine").write_text("mine")
    (here / "out" / ".lock").symlink_to(here / "mine")
    refuse((*LENET, "--out", "out"), "out cannot be written: Too many levels of symbolic links")
    assert (here / "mine").read_text() == "mine"


# --- data files ------------------------------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def data_dir(tmp_path):
    """Four small IDX files that are whole, but not Fashion-MNIST's."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for name in fashion_mnist.HASHES:
        array = np.zeros((6, 28, 28) if "images" in name else 6, np.uint8)
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return folder


def test_altered_and_truncated_data_files(data_dir, refuse):
    arguments = ("train", "--recipe", "d2l-lenet", "--data-dir", data_dir)
    first = data_dir / "train-images-idx3-ubyte.gz"
    whole = first.read_bytes()
    refuse(arguments, f"{first} is damaged or not the original: sha256", "expected c59f468a")
    first.write_bytes(whole[:-20])
    refuse(arguments, f"{first} is truncated or damaged ({len(whole) - 20} bytes")
    first.write_bytes(gzip.compress(gzip.decompress(whole)[:-20]))
    refuse(arguments, f"{first} has 4700 bytes, its header (6, 28, 28) expects 4720")
    first.write_bytes(gzip.compress(b"<html>404 not found</html>"))
    refuse(arguments, f"{first} is no IDX file")
    first.unlink()
    refuse(arguments, f"{data_dir} holds neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz")


@needs_set("fashion-mnist")
def test_one_altered_byte_in_the_real_files(tmp_path, refuse):
    folder = shutil.copytree(REAL_SETS / "fashion-mnist", tmp_path / "real")
    name = "t10k-labels-idx1-ubyte"
    path = fashion_mnist.find_file(folder, name)
    labels = bytearray(fashion_mnist.read_idx(gzip.decompress(path.read_bytes()), name).tobytes())
    labels[77] = (labels[77] + 1) % 10
    path.unlink()
    (folder / name).write_bytes(idx(np.frombuffer(bytes(labels), np.uint8)))
    arguments = ("train", "--recipe", "d2l-lenet", "--data-dir", folder)
    refuse(arguments, f"{folder / name} is damaged or not the original", fashion_mnist.HASHES[name])


# --- models ----------------------------------------------------------------------------------------------------------


def test_a_model_file_that_does_not_fit(run, refuse):
    file = run / "checkpoint" / "model.safetensors"
    refuse(("evaluate", file), "holds parameters only", "--arch")
    refuse(("evaluate", file, "--arch", "vgg11"), "do not fit 'vgg11': 'block1.conv1.weight' (64, 3, 3, 3) is missing")
    twelve = "'dense3.weight' has the shape (10, 84), expected (12, 84)"
    refuse(("evaluate", file, "--arch", "lenet", "--classes", "12"), "do not fit 'lenet'", twelve)


def test_a_damaged_model_file(run, refuse):
    file = run / "checkpoint" / "model.safetensors"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-9] ^= 4
    for content in (bytes(flipped), whole[:-50], pickle.dumps({"weight": 1})):
        file.write_bytes(content)
        for command in (("evaluate", run), ("evaluate", file, "--arch", "lenet"), ("train", "--resume", run)):
            refuse((*command, *(("--epochs", "2") if "--resume" in command else ())), f"{file} was altered: it")
    (file.parent / "state.json").unlink()
    refuse(("evaluate", run), f"{file.parent / 'state.json'} cannot be read: No such file", "nothing was changed")
    refuse(("evaluate", file, "--arch", "lenet"), f"{file} is no safetensors file")


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_weights_that_give_no_numbers(value, run, here, refuse):
    """No NaN in a report, and no best class: 3e38 itself is a number, its products are none."""
    found = run_folder.load(run)
    weights = {**found.model, "dense3.weight": np.full_like(found.model["dense3.weight"], value)}
    run_folder.save(run, run_folder.read_epochs(run), replace(found, model=weights), keep=1)
    Image.new("L", (28, 28), 255).save(here / "white.png")
    why = "outputs that are no numbers" if np.isfinite(value) else "'dense3.weight' holds NaN or inf"
    for command in (("evaluate", run), ("predict", run, "--first", "2"), ("predict", run, "white.png")):
        refuse((*command, "--json"), why)


def test_options_that_a_run_does_not_take(run, refuse):
    refuse(("evaluate", run, "--classes", "12"), "knows its recipe")
    refuse(("evaluate", run, "--mean", "0.5"), "knows its recipe")
    refuse(("evaluate", run, "--seed", "1"), "Unknown option: --seed")  # what is used is not trained
    refuse(("predict", run, "--first", "2", "--epochs", "3"), "Unknown option: --epochs")
    refuse(("evaluate", run, "--batch-size", "0"), "--batch-size 0 must be at least 1")
    refuse(("train", "--resume", run, "--seed", "1"), "with --resume only --epochs")
    refuse(("train", "--resume", run, "--classes", "11"), "with --resume only --epochs")


def test_resuming_what_does_not_fit_together(run, refuse):
    network = zoo.Options(input=(0, 32, 32))
    recipe = run_folder.read_recipe(run)
    run_folder.write_recipe(run, Recipe("test", architecture="lenet", network=network, data="synthetic"))
    refuse(("train", "--resume", run), "is of another recipe than recipe.json has")
    run_folder.write_recipe(run, recipe)
    (run / "metrics.jsonl").unlink()
    refuse(("train", "--resume", run), "metrics.jsonl cannot be read: No such file")


def test_starts_that_do_not_fit_and_patterns_that_match_nothing(run, here, refuse):
    vgg = ("train", "--arch", "vgg11", "--data", "synthetic", "--resolution", "32", "--width-ratio", "16")
    refuse([*vgg, "--init-from", run], "nothing of --init-from fits 'vgg11'", "'block1.conv1.weight' is", "not there")
    refuse([*LENET, "--init-from", here / "none"], "cannot read the parameters", "No such file")
    new_head = ("--init-from", run, "--classes", "12", "--freeze", "conv1.*,dense3.*")
    refuse([*LENET, *new_head], "--freeze would keep 'dense3.bias' at its random start")
    shutil.rmtree(run / "checkpoint")
    refuse([*LENET, "--init-from", run], "there is no checkpoint in it")
    refuse(
        [*LENET, "--freeze", "conv1.*,block*"], "--freeze 'block*' matches no parameter of 'lenet'", "'conv1.weight'"
    )
    refuse([*LENET, "--multipliers", "block*:rate=2"], "--multipliers 'block*' matches no parameter of 'lenet'")
    refuse([*LENET, "--multipliers", "conv*=2"], "--multipliers 'conv*=2' does not say what is multiplied by what")
    refuse([*LENET, "--optimizer", "adam:beta3=1"], "unknown setting of optimizer 'adam' 'beta3'")
    refuse([*LENET, "--optimizer", "adamw:eps_added=before"], "unknown setting of optimizer 'adamw' 'eps_added'")
    refuse([*LENET, "--freeze", "*"], "--freeze * leaves nothing of 'lenet' to train")
    refuse([*LENET, "--freeze", ","], "--freeze ',' names nothing")


def test_sizes_that_no_dense_form_has(run, refuse):
    refuse(["evaluate", run, "--dense-size", "64"], "give --dense too")
    refuse(["evaluate", run, "--dense", "--dense-size", "big"], "'big' is neither N nor HxW")
    refuse(["evaluate", run, "--dense", "--dense-size", "27x40"], "at least the training size 28x28, got 27x40")
    refuse(["predict", run, "--first", "1", "--dense", "--score-map", "map.png"], "needs --dense and one image file")


def test_data_with_more_classes_than_the_model(run, here, refuse):
    for number in range(11):
        for split in ("train", "test"):
            folder = here / "images" / split / f"{number:02}"
            folder.mkdir(parents=True)
            Image.new("L", (28, 28), number).save(folder / "0.png")
    refuse(("evaluate", run, "--data", here / "images"), "'images' has 11 classes", "only 10")


def test_predict(run, here, refuse):
    (here / "text.png").write_text("this is no image")
    (here / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    refuse(("predict", run), "give image files, or --first N")
    refuse(("predict", run, "text.png", "--first", "2"), "give image files, or --first N")
    refuse(("predict", run, "--first", "0"), "--first 0 must be at least 1")
    refuse(("predict", run, "--first", "-1"), "--first -1 must be at least 1")
    refuse(("predict", run, "missing.png"), "there is no image file missing.png")
    refuse(("predict", run, here), f"there is no image file {here}")
    refuse(("predict", run, "text.png"), "text.png is no image")
    refuse(("predict", run, "photo.png"), "photo.png")
    refuse(("predict", run, "--json", "photo.png"), "photo.png")  # an image to classify, not a file to write


def test_feature_maps_of_a_fresh_network_have_nothing_to_train(here, refuse):
    Image.new("L", (28, 28)).save(here / "photo.png")
    command = ("feature-maps", here / "photo.png", "--arch", "lenet")
    for option in (("--mean", "0.5"), ("--precision", "bf16"), ("--data", "nope")):
        refuse((*command, *option), "without --run nothing is trained")
    for name, value in (("--epochs", "3"), ("--freeze", "conv1.*"), ("--init-from", "run")):
        refuse((*command, name, value), f"Unknown option: {name}")


def test_an_image_whose_notes_are_damaged(run, here, refuse):
    """Pillow raises struct.error when it turns this picture upright: its EXIF width is a text."""
    notes = Image.Exif()
    notes[0x0112], notes[0x010E] = 6, "hello"
    damaged = notes.tobytes().replace(b"\x01\x0e", b"\x01\x00", 1)
    Image.new("L", (8, 8)).save(here / "photo.jpg", exif=damaged)
    refuse(("predict", run, "photo.jpg"), "photo.jpg cannot be decoded")
