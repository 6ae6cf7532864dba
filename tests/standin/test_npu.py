"""The NPU path of the PyTorch backend on the stand-in, held against the same steps on the CPU.

Run it by itself, as `make test` does: pytest tests/standin
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import npu
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers import Silent
from triptych import data, zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.backend.execution import Execution
from triptych.conformance import suite
from triptych.conformance.case import conformance_architecture, make_case
from triptych.data import Dataset, Split, batches
from triptych.data.batches import Augmentation
from triptych.optim.optimizers import OPTIMIZERS, SGD, Rates
from triptych.training import keeping, loop, recipes, run_folder, sessions
from triptych.training.recipe import Recipe, vary
from triptych.utils.errors import TriptychError
from triptych_torch import device as devices

ROOT = Path(__file__).parents[2]
TORCH = registry.load("torch")
VGG = Recipe(
    "vgg",
    network=zoo.Options(input=(0, 32, 32), width_ratio=16, head="small"),
    batch_size=32,
    learning_rate=0.02,
    seed=3,
)
VGG = replace(VGG, augmentation=Augmentation(4, True), optimizer=SGD(momentum=0.9))
LENET = ("--recipe", "d2l-lenet", "--data", "synthetic", "--epochs", "1", "--backend", "torch")
OPTIMIZER = SGD(momentum=0.9, weight_decay=5e-4)
CONVOLUTION = "aten.convolution.default"


@pytest.fixture(autouse=True)
def _nothing_called(here):
    npu.CALLS.clear()
    npu.TOLD.clear()


@pytest.fixture
def nchw(monkeypatch):
    """The CPU in NCHW too: another layout is other kernels, and so other roundings."""
    monkeypatch.setitem(devices.LAYOUTS, "cpu", torch.contiguous_format)


@pytest.fixture
def call(capfd):
    """`call("train", ...)`: its standard output and standard error, after an end with status 0."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert stopped.value.code == 0, err
        return out, err

    return call


def few_images(count=96):
    whole = data.load("synthetic")
    train, test = (Split(split.images[:count], split.labels[:count]) for split in (whole.train, whole.test))
    return Dataset("synthetic", train, test, whole.class_names)


def fit(recipe, device, folder, epochs):
    """Train up to so many epochs, going on with what the folder holds."""
    recipe = replace(recipe, epochs=epochs)
    begun = folder if (folder / run_folder.RECIPE).exists() else None
    session = sessions.start(TORCH, recipe, few_images(), device=device, resumed=begun)
    keeping.keep_in(session, folder)
    loop.fit(session, Silent())
    return session


def assert_equal(left, right):
    """Two dictionaries of arrays, to the bit."""
    assert left.keys() == right.keys()
    assert [name for name in left if not np.array_equal(left[name], right[name])] == []


def outcome(session):
    found = keeping.checkpoint_of(session)
    losses = np.array([loss for epoch in session.epochs for loss in epoch.losses])
    return found.model | {f"velocity of {path}": value for path, value in found.optimizer.items()} | {"losses": losses}


# --- the same numbers as the CPU -------------------------------------------------------------------------------------


def two_steps(name, device, optimizer, rates):
    """The arrays that two steps and a prediction leave: losses, parameters, the optimiser's state, logits."""
    case = make_case(conformance_architecture(name))
    network = TORCH.build(case.architecture, device=device)
    TORCH.from_canonical(network, case.parameters)
    trainer = TORCH.Trainer(network, optimizer, case.transform, 0)
    steps = [trainer.step(case.stored, case.targets, rates, number) for number in range(2)]
    assert {parameter.device.type for parameter in network.parameters()} == {device}
    state = {f"state {path}": value for path, value in trainer.state().items()}
    last = {"losses": trainer.read(steps), "logits": trainer.predict(case.stored)}
    return TORCH.to_canonical(network) | state | last


@pytest.mark.parametrize("name", zoo.registry())
def test_two_steps_equal_the_cpu_to_the_bit(name, nchw):
    rates = Rates(0.01, 0.9)
    assert_equal(two_steps(name, "npu", OPTIMIZER, rates), two_steps(name, "cpu", OPTIMIZER, rates))
    assert npu.CALLS[CONVOLUTION] > 0


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "adagrad"])
def test_two_steps_of_other_optimizers_equal_the_cpu_too(name, nchw):
    chosen = OPTIMIZERS[name](weight_decay=1e-2)
    found = two_steps("lenet", "npu", chosen, Rates(1e-3, 0.0))
    assert_equal(found, two_steps("lenet", "cpu", chosen, Rates(1e-3, 0.0)))


@pytest.mark.parametrize("path", [("npu", "npu", "npu"), ("cpu", "npu", "cpu"), ("npu", "cpu", "npu:0")])
def test_a_run_goes_on_from_the_cpu_to_the_npu_and_back(path, nchw, tmp_path):
    for epochs, device in enumerate(path, start=1):
        session = fit(VGG, device, tmp_path / "moved", epochs)
    assert_equal(outcome(session), outcome(fit(VGG, "cpu", tmp_path / "whole", len(path))))


def test_a_checkpoint_of_the_npu_serves_where_there_is_none(call):
    call("train", *LENET, "--device", "npu", "--out", "run")
    here, _ = call("evaluate", "run", "--backend", "torch", "--device", "npu", "--json")
    command = [sys.executable, "-m", "triptych", "evaluate", "run", "--backend", "torch"]
    run = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout)["loss"] == pytest.approx(json.loads(here)["loss"], rel=1e-4)
    refused = subprocess.run([*command, "--device", "npu"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "npu: torch_npu is not installed" in refused.stderr


@pytest.mark.parametrize("name", ["lenet", "vgg11", "vgg11_bn"])
def test_conformance_passes(name):
    verdict = suite.run(conformance_architecture(name), [TORCH], device="npu")
    assert [check for report in verdict.reports for check in report.failures] == []
    assert verdict.passed
    assert npu.CALLS[CONVOLUTION]


def test_the_certificate_records_that_hf32_was_off(call):
    torch.npu.conv.allow_hf32 = True
    arguments = ("--arch", "lenet", "--backends", "torch", "--device", "npu", "--certificate", "certificate.json")
    call("conform", *arguments)
    text = Path("certificate.json").read_text()
    for name in ("npu.conv.allow_hf32", "npu.matmul.allow_hf32"):
        assert text.count(f'"{name}": false') == 2, name  # in both precisions


# --- what a step asks of the device ----------------------------------------------------------------------------------


class CpuOperators(TorchDispatchMode):
    """Notes every operator that takes or returns a CPU tensor."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if function is torch.ops.aten.lift_fresh.default:  # torch.from_numpy: no work
            return result
        if any(tensor.device.type == "cpu" for tensor in tensors):
            self.seen.append((str(function), tuple(t.device.type for t in tensors), tensors[0].dtype))
        return result


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(4, True)])
def test_inside_a_step_the_cpu_only_hands_over_what_it_stores(augmentation):
    """Images as bytes, labels, and with a crop two sets of indices; nothing comes back."""
    recipe, dataset = replace(VGG, augmentation=augmentation, mean=(0.5,), std=(0.25,)), few_images()
    session = sessions.start(TORCH, recipe, dataset, device="npu")
    plan = batches.plan(3, 0, len(dataset.train), 32, augmentation)
    given = batches.feed(dataset.train.images, dataset.train.labels, plan, augmentation)
    for number, (images, labels, gather) in enumerate(given):
        npu.CALLS.clear()
        with CpuOperators() as cpu:
            session.trainer.step(images, labels, Rates(0.02, 0.9), number, gather=gather)
        if number:  # the first step also makes the resize matrices
            upload = ("aten._to_copy.default", ("cpu", "npu"))
            expected = [torch.int64, torch.uint8, *([torch.int64] * 2 if gather else [])]
            assert cpu.seen == [(*upload, dtype) for dtype in expected]
            assert npu.CALLS["copy cpu to npu"] == len(expected)
            assert npu.CALLS["copy npu to cpu"] == 0
            assert npu.CALLS[CONVOLUTION] == 8


def test_the_device_is_told_seed_mode_and_precision(call):
    torch.npu.conv.allow_hf32 = torch.npu.matmul.allow_hf32 = True
    out, _ = call("train", *LENET, "--device", "npu", "--deterministic", "--json", "--out", "run")
    assert (torch.npu.conv.allow_hf32, torch.npu.matmul.allow_hf32) == (False, False)
    assert json.loads(out)["peak_memory"] == torch.npu.max_memory_allocated()
    assert {"manual_seed_all", "set_compile_mode", "set_device", "synchronize"} <= npu.TOLD.keys()
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)


def test_an_operator_that_cannot_be_deterministic_is_named(monkeypatch):
    session = sessions.start(TORCH, VGG, few_images(), device="npu")

    def refuse(x):
        raise RuntimeError("avg_pool3d_backward_cuda does not have a deterministic implementation, but you set ...")

    monkeypatch.setattr(session.network, "forward", refuse)
    with pytest.raises(TriptychError, match=r"^avg_pool3d_backward_cuda has no deterministic form .* --deterministic"):
        loop.fit(session, Silent())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_near_the_full_one(precision, tmp_path):
    full, reduced = (fit(replace(VGG, precision=name), "npu", tmp_path / name, 1) for name in ("fp32", precision))
    assert outcome(reduced)["losses"] == pytest.approx(outcome(full)["losses"], rel=0.02)
    assert not np.array_equal(outcome(reduced)["losses"], outcome(full)["losses"])
    assert {parameter.dtype for parameter in reduced.network.parameters()} == {torch.float32}
    assert reduced.trainer.predict(few_images().test.images).dtype == np.float32


def test_a_float16_run_resumes_with_its_loss_scale(nchw, tmp_path):
    recipe = replace(VGG, precision="fp16")
    for epochs in (1, 2):
        parted = fit(recipe, "npu", tmp_path / "parted", epochs)
    assert_equal(outcome(parted), outcome(fit(recipe, "npu", tmp_path / "whole", 2)))
    scale, clean_steps = parted.trainer.state()["(loss scale)"]
    assert (scale, clean_steps) == (2.0**16, 6)


def test_a_float16_overflow_skips_the_step_and_halves_the_scale():
    case = make_case(conformance_architecture("lenet"))
    network = TORCH.build(case.architecture, device="npu", execution=Execution("fp16"))
    TORCH.from_canonical(network, case.parameters)
    trainer = TORCH.Trainer(network, OPTIMIZER, case.transform, 0)
    trainer.load_state({"(loss scale)": np.array([2.0**40, 0])})
    trainer.step(case.stored, case.targets, Rates(0.1, 0.9), 0)
    assert_equal(TORCH.to_canonical(network), case.parameters)
    assert trainer.state()["(loss scale)"][0] == 2.0**39


def data_folder(folder):
    """37 training and 10 test images in 10 classes: three batches of 16, the last of 5."""
    draws = np.random.default_rng(0)
    for number in range(47):
        path = folder / "set" / ("train" if number < 37 else "test") / str(number % 10) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((draws.random((28, 28)) * 256).astype(np.uint8)).save(path)
    return folder / "set"


def test_two_processes_with_hccl_equal_one(call, tmp_path):
    """In float64, where only a fault can differ; the last batch is odd."""
    lenet = ("--recipe", "d2l-lenet", "--data", data_folder(tmp_path), "--backend", "torch", "--device", "npu:0")
    lenet = (*lenet, "--precision", "fp64", "--batch-size", "16", "--learning-rate", "0.1", "--momentum", "0.9")
    here = Path(__file__).parent
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        here / "worker.py",
    ]
    command = [*map(str, launch), "train", *lenet, "--out", "two", "--epochs"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *filter(None, sys.path)])}
    for end in (["1"], ["2"]):  # and on again from a checkpoint
        run = subprocess.run([*command, *end], capture_output=True, text=True, env=environment, timeout=600)
        assert run.returncode == 0, run.stderr[-2000:]
        assert len(re.findall(r"hccl calls: [1-9]", run.stderr)) == 2
        assert run.stdout.count("torch epoch") == 1
        command = [*map(str, launch), "train", "--resume", "two", "--backend", "torch", "--device", "npu:0", "--epochs"]
    call("train", *lenet, "--out", "one", "--epochs", "2")
    one, two = (run_folder.load(Path(name)) for name in ("one", "two"))
    for left, right in ((one.model, two.model), (one.optimizer, two.optimizer)):
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert np.abs(value - right[name]).max() <= 1e-10 * np.abs(value).max(), name
    losses = [
        np.array([loss for e in run_folder.read_epochs(Path(name)) for loss in e.losses]) for name in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-10)
    assert len(losses[0]) == 2 * 3


# --- what the user is told -------------------------------------------------------------------------------------------


def test_commands_run_there_and_name_the_operators_left_to_the_cpu(call, monkeypatch):
    monkeypatch.setattr(npu, "WITHOUT_KERNEL", {"aten.avg_pool2d_backward.default", "aten.avg_pool2d.default"})
    said = "ran on the CPU: aten::avg_pool2d"
    _, err = call("train", *LENET, "--device", "npu", "--out", "run")
    assert err.count("CAUTION") == 2  # still shown
    assert err.endswith(f"2 operators {said}, aten::avg_pool2d_backward\n")
    for command in (("evaluate", "run"), ("predict", "run", "--first", "2"), ("conform", "--arch", "lenet")):
        option = "--backends" if command[0] == "conform" else "--backend"
        npu.CALLS.clear()
        _, err = call(*command, option, "torch", "--device", "npu:0")
        assert npu.CALLS[CONVOLUTION], command
        assert said in err, command
    npu.CALLS.clear()
    _, err = call("evaluate", "run", "--backend", "torch", "--device", "cpu")
    assert (err, npu.CALLS.total()) == ("", 0)


@pytest.mark.parametrize("name", ["npu:1", "npu:-1", "npu:x", "npu:"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(TriptychError, match=f"no device '{name}' here .*npu:0: stand-in on the CPU"):
        TORCH.build(zoo.build("lenet"), device=name)


def test_doctor_lists_it(call):
    found = {entry["backend"]: entry for entry in json.loads(call("doctor", "--json")[0])}
    device = {"name": "npu:0", "available": True, "reason": "stand-in on the CPU"}
    assert device in found["torch"]["devices"]


def test_the_stand_in_refuses_to_mix_devices():
    with pytest.raises(RuntimeError, match="all tensors to be on npu:0"):
        torch.nn.Linear(2, 2).to("npu")(torch.ones(1, 2))


def test_the_acceptance_script_runs_through(monkeypatch, capfd):
    """All that it can show here is that it works."""
    spec = importlib.util.spec_from_file_location("acceptance", ROOT / "benchmarks" / "ascend_acceptance.py")
    acceptance = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "acceptance", acceptance)
    spec.loader.exec_module(acceptance)
    monkeypatch.setattr(npu, "WITHOUT_KERNEL", {"aten.avg_pool2d.default"})
    monkeypatch.setattr(acceptance, "THROUGHPUT", ("fp16",))
    status = acceptance.main(["--arch", "lenet", "--recipe", "d2l-lenet", "--data", "synthetic"])
    found = json.loads(Path("ascend-acceptance/report.json").read_text())
    ends = {step["name"]: step["status"] for step in found["steps"]}
    steps = ("environment", "conformance", "three epochs", "throughput fp16", "bench")
    # `bench` measures in processes of its own, where the stand-in is not: there it says that no NPU is here
    assert (status, ends) == (1, {**dict.fromkeys(steps, 0), "bench": 2})
    assert found["ran_on_the_cpu"] == ["aten::avg_pool2d"]
    report = Path("ascend-acceptance/report.md").read_text()
    assert "- aten::avg_pool2d\n" in report
    assert re.search(r"\| fp16 \| \d+ \|", report)


def test_the_recipe_of_the_source_text_takes_its_first_steps():
    recipe = vary(recipes.get_recipe("ascend-cifar10"), epochs=1, width_ratio=16, batch_size=32)
    session = sessions.start(TORCH, recipe, few_images(), device="npu")
    assert len(loop.fit(session, Silent())) == 1
