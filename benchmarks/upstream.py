"""Bugs of the frameworks themselves, each in a few lines of that framework alone.

python benchmarks/upstream.py [NAME ...] [--page] [--torch PYTHON]

Every case runs in a process of its own, because some end it. `--page` prints docs/upstream.md, its outputs being those
of this run; `--torch` names another Python, whose PyTorch runs PyTorch's cases, too. Expect the lines that the page
shows, except where the processor or a newer version differs.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

PACKAGES = {"torch": ("torch",), "mxnet": ("mxnet", "numpy"), "flax": ("jax", "flax")}


def torch_pointwise_stride() -> None:
    """The gradient of a strided 1x1 convolution's weights writes beyond its memory

    **A bug, live.** On a processor with AVX-512, in float32 and channels_last, with 2 to 15 input channels, at most 16
    output channels, stride 2 and an even map of 56x56 or larger, the process dies: by SIGSEGV, or by the abort of a
    heap that is found damaged. It is the gradient by the weights (oneDNN's `jit:avx512_core` backward_weights; PyTorch
    has oneDNN 3.12.0); output and gradient by the input are right, and so are the gradients by the weights wherever
    the process survives: up to 55x55, at 57x57, at stride 1, 3 and 4, with 1 or 16 input channels, or with
    `ONEDNN_MAX_CPU_ISA=AVX2`. No value was seen to be wrong without a crash, but memory is overwritten before it.
    Expected: `survived`.
    """
    import torch

    print("CPU:", torch.backends.cpu.get_cpu_capability(), flush=True)
    conv = torch.nn.Conv2d(8, 8, kernel_size=1, stride=2).to(memory_format=torch.channels_last)
    x = torch.randn(4, 8, 60, 60).contiguous(memory_format=torch.channels_last)
    for _ in range(20):
        conv(x).sum().backward()
    print("survived")


def torch_hardsigmoid() -> None:
    """The derivative of hardsigmoid in float64 is 1/6 in float32

    **A bug, live.** The forward pass divides by 6 in float64 and is right. The backward pass on the CPU multiplies by a
    1/6 that was rounded to float32: right to 7 digits of 16. `torch.autograd.gradcheck` does not see it, because its
    tolerance is larger. Expected: 0.1666666666666667.
    """
    import torch

    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.hardsigmoid(x).backward()
    print(f"{x.grad.item():.16f}")


def torch_debug_detail() -> None:
    """With TORCH_DISTRIBUTED_DEBUG=DETAIL, DistributedDataParallel ends the process

    **A bug, live.** The variable is the documented way to look for ranks that part. With it and gloo the constructor
    of DistributedDataParallel dies by SIGSEGV where it logs what it was made of (`set_construction_data_and_log`), with
    one process or several, before any gradient; `INFO` works. NCCL was not tried. Expected: `survived`.
    """
    import torch
    from torch import distributed

    distributed.set_debug_level(distributed.DebugLevel.DETAIL)  # as TORCH_DISTRIBUTED_DEBUG=DETAIL does
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
    print("survived")


def mxnet_deconvolution() -> None:
    """A float64 Deconvolution with both stride and dilation above 1 is wrong

    **A bug; MXNet is retired and 1.9.1 its last version.** A 2x2 map of ones and a 2x2 kernel of ones: every value adds
    a 1 at four places that are two apart, so that the middle one gets 4. Float32, computed by oneDNN, is right; MXNet's
    own kernel (float64, and builds without oneDNN) puts ones where nothing lies. Nothing is said. Expected: both alike.
    """
    import mxnet as mx

    for dtype in ("float32", "float64"):
        ones = mx.nd.ones((1, 1, 2, 2), dtype=dtype)
        y = mx.nd.Deconvolution(ones, ones, kernel=(2, 2), stride=(2, 2), dilate=(2, 2), num_filter=1, no_bias=True)
        print(dtype, y[0, 0].astype("int32").asnumpy().tolist())


def mxnet_prelu() -> None:
    """The gradient of PReLU's slopes is multiplied by the slopes

    **A bug; MXNet is retired.** In a hybridized block with a layer before and one behind, the operator's two gradients
    get the same memory. Whoever trains PReLU hybridized (or by a symbol) trains its slopes at a quarter of the rate.
    Expected: both alike.
    """
    import mxnet as mx
    from mxnet.gluon import nn

    x = mx.nd.array([[-1.0, -2.0, 3.0]])
    x.attach_grad()
    for hybrid in (False, True):
        prelu = nn.PReLU(mx.init.Constant(0.25))
        net = nn.HybridSequential()
        net.add(nn.Activation("tanh"), prelu, nn.Activation("tanh"))
        net.initialize()
        net.hybridize(hybrid)
        with mx.autograd.record():
            y = net(x)
        y.backward()
        print("hybridized:" if hybrid else "imperative:", prelu.alpha.grad().asscalar())


def mxnet_batch_norm() -> None:
    """The running statistics of a BatchNorm on the images never move

    **A bug; MXNet is retired.** A BatchNorm without trained gamma and beta, right on the images, as `resnet18_v2` of
    Gluon's model zoo begins: the operator writes its running statistics in the backward pass, and no gradient is asked
    of it, unless the images have one (`attach_grad`). In evaluation the images are then not normalised at all.
    Expected: 8 * (1 - 0.9 ** 3) = 2.168, both times.
    """
    import mxnet as mx
    from mxnet.gluon import nn

    for attach in (True, False):
        images = mx.nd.full((4, 1, 2, 2), 8)
        if attach:
            images.attach_grad()
        net = nn.HybridSequential()
        net.add(nn.BatchNorm(scale=False, center=False), nn.Dense(1))
        net.initialize()
        for _ in range(3):
            with mx.autograd.record():
                loss = net(images).sum()
            loss.backward()
        print("images with a gradient:" if attach else "images alone:", net[0].running_mean.data().asscalar())


def mxnet_resnet() -> None:
    """The same in Gluon's model zoo: resnet18_v2

    **The same bug**, in the network that everybody takes: after a training step that moves all other statistics,
    `batchnorm0_running_mean` is 0. Expected: 0.8, a tenth of the images' mean.
    """
    import mxnet as mx
    from mxnet.gluon.model_zoo import vision

    net = vision.resnet18_v2()
    net.initialize()
    with mx.autograd.record():
        loss = net(mx.nd.random.uniform(7, 9, (2, 3, 32, 32))).sum()
    loss.backward()
    means = {n: p.data() for n, p in net.collect_params(".*running_mean").items()}
    still = [name for name, mean in means.items() if not mean.asnumpy().any()]
    print(f"running means that are still 0: {len(still)} of {len(means)}: {still[0].split('_', 1)[1]}")


def mxnet_average_pool() -> None:
    """The backward pass of an average pool divides by another count than the forward pass

    **A bug of MXNet's use of oneDNN; MXNet is retired.** The last windows of a 2x2 pool at stride 2 hang over a 3x3
    map (`pooling_convention="full"`). Forward, the mean is of the values that are there; backward, with
    `count_include_pad=True` (the default) in float32, the gradient is always divided by 4. Expected: both alike.
    """
    import mxnet as mx

    for dtype in ("float32", "float64"):
        x = mx.nd.ones((1, 1, 3, 3), dtype=dtype)
        x.attach_grad()
        with mx.autograd.record():
            y = mx.nd.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg", pooling_convention="full")
        y.backward()
        print(dtype, "means", y[0, 0].asnumpy().tolist(), "gradient", x.grad[0, 0].asnumpy().tolist())


def mxnet_running_variance() -> None:
    """A small running variance in float32 is what is left of eps

    **Lost digits, found by the hunt; MXNet is retired.** The operator keeps 1 / sqrt(variance + eps) and subtracts eps
    again for the running variance: where the variance is much smaller than eps, little or nothing of it is left. The
    error is one rounding of variance + eps, so that it does no harm until the statistics are used with another eps (in
    another framework, or folded into a convolution). Expected: 2.5e-07 and 2.5e-09 in both types.
    """
    import mxnet as mx
    from mxnet.gluon import nn

    for dtype in ("float32", "float64"):
        for other in (1e-3, 1e-4):
            norm = nn.BatchNorm(momentum=0, epsilon=0.1, in_channels=1)
            norm.initialize()
            norm.cast(dtype)
            x = mx.nd.array([0, other], dtype=dtype).reshape((2, 1, 1, 1))
            with mx.autograd.record():
                loss = norm(x).sum()
            loss.backward()
            print(dtype, f"{norm.running_var.data().asscalar():.3g}")


def mxnet_selu() -> None:
    """The gradient of SELU is wrong below 0

    **A bug; MXNet is retired.** The backward pass takes the output for alpha * (exp(x) - 1), as it may with ELU, but
    here the output has the scale in it (`mshadow_op::selu_grad` of `LeakyReLU`): the gradient is scale * (alpha + y),
    and far below 0 it is -0.089 where it should be 0. Gluon's `nn.SELU` is this operator. Expected: 0, 0.646768,
    1.066341 and 1.050701, the derivative.
    """
    import mxnet as mx

    x = mx.nd.array([-30, -1, -0.5, 1], dtype="float64")
    x.attach_grad()
    with mx.autograd.record():
        y = mx.nd.LeakyReLU(x, act_type="selu")
    y.backward()
    print("output", [round(value, 6) for value in y.asnumpy().tolist()])
    print("gradient", [round(value, 6) for value in x.grad.asnumpy().tolist()])


def mxnet_softrelu() -> None:
    """Softplus in float32 is negative far below 0

    **Lost digits in MXNet's use of oneDNN; MXNet is retired.** Far below 0 softplus is exp(x), always positive. In
    float32 the operator is off by 2e-6 there, so that no digit is left below -13; in float64 it is right. Expected:
    2.06e-09 and 3.06e-07 in both types.
    """
    import mxnet as mx

    for dtype in ("float32", "float64"):
        y = mx.nd.Activation(mx.nd.array([-20, -15], dtype=dtype), act_type="softrelu")
        print(dtype, [f"{value:.3g}" for value in y.asnumpy().tolist()])


def flax_bfloat16_bias() -> None:
    """A bias's gradient in bfloat16 is summed in bfloat16

    **A bug, live, found by `conform --precision bf16`.** A layer with `dtype=jnp.bfloat16` adds its bias in bfloat16;
    the gradient of that addition is a sum over batch and places, which XLA takes in bfloat16 when it is compiled with
    what comes before it: from some size on a partial sum does not grow any more. `jnp.sum` sums in float32 of itself,
    the transpose of a broadcast does not. Seen on a CPU; what GPUs and TPUs do was not looked at. The layers of this
    project's JAX backend add the bias in float32 and round then. Expected: about 100,000 in both lines (bfloat16 has
    three digits).
    """
    import jax.numpy as jnp
    from flax import nnx

    layer = nnx.Linear(2, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = jnp.ones((200_000, 2))

    def loss(layer):
        return (layer(x) * 0.5).astype(jnp.float32).sum()

    print("not compiled:", nnx.grad(loss)(layer)["bias"][...])
    print("compiled:", nnx.jit(nnx.grad(loss))(layer)["bias"][...])


def flax_assignment() -> None:
    """Tracing takes time that grows with the square of the number of assignments

    **A bug of speed, not of values; live.** `variable[...] = value` with a traced value, as `nnx.BatchNorm` assigns its
    two running statistics, asks for the value's sharding first. A traced value has none, and to say so JAX goes through
    all that was traced before. `variable.set_value(value)` asks for nothing. Expected: twice as many assignments, about
    twice the time, either way. (The times are those of a busy machine; their growth is what counts.)
    """
    from time import perf_counter

    import jax
    import jax.numpy as jnp
    from flax import nnx

    def seconds(assign, count):
        graph, state = nnx.split(nnx.List([nnx.BatchStat(jnp.zeros(4)) for _ in range(count)]))

        def run(state, x):
            variables = nnx.merge(graph, state)
            for variable in variables:
                x = jnp.tanh(x)
                assign(variable, x)
            return nnx.state(variables)

        start = perf_counter()
        jax.jit(run).lower(state, jnp.ones(4))
        return perf_counter() - start

    ways = {"variable[...] = x": lambda variable, x: variable.__setitem__(..., x)}
    ways["variable.set_value(x)"] = lambda variable, x: variable.set_value(x)
    for name, assign in ways.items():
        seconds(assign, 1)
        print(name, ", ".join(f"{count}: {seconds(assign, count):.1f} s" for count in (100, 200, 400, 800)))


CASES: dict[str, Callable[[], None]] = {
    case.__name__: case
    for case in (
        torch_pointwise_stride,
        torch_hardsigmoid,
        torch_debug_detail,
        mxnet_deconvolution,
        mxnet_prelu,
        mxnet_batch_norm,
        mxnet_resnet,
        mxnet_average_pool,
        mxnet_running_variance,
        mxnet_selu,
        mxnet_softrelu,
        flax_bfloat16_bias,
        flax_assignment,
    )
}

INTRODUCTION = """# Bugs of the frameworks

What the judge found in the frameworks themselves, reduced to a few lines of that framework alone. This page is printed
by `python benchmarks/upstream.py --page > docs/upstream.md`; the outputs are those of that run. "Live" means: in the
newest versions that were tried, which stand above the output. MXNet is retired, and 1.9.1 is its last release. Under
NumPy 2 MXNet needs `import triptych_mxnet.numpy_names` before it, aliases of names that NumPy has dropped (the script
does that); nothing else of triptych takes part. None of these has been reported to its project from here.

`python benchmarks/hunt.py --minutes 60` looks for more: random networks, judged on every framework, and what fails
reduced. `--bare` takes the frameworks' own layers instead of this project's detours around what stands here.
"""

DOCUMENTED = """## What is no bug

Differences that the frameworks document, or that are a matter of choice; the backends pass or compute what the spec
says instead.

- JAX: `jnp.maximum(x, 0)`, `jnp.clip` and `jax.nn.relu6` have the derivative 0.5 where the two are equal, `jax.nn.relu`
  has 0; `x.max()` shares the gradient among equal values. PyTorch and MXNet take one of them.
- GELU: `jax.nn.gelu` and `nnx.gelu` are its tanh form if not told, `nn.GELU` of PyTorch and Gluon the one with erf:
  up to 4.7e-4 apart. Softplus: PyTorch's and MXNet's are x itself above 20, 2e-9 off in float64.
- Flax: `nnx.BatchNorm` computes the variance as E[x^2] - E[x]^2 (`use_fast_variance`), which cancels; the running
  variance is the biased one; the momentum is the weight of the old statistics, 0.99 if not told.
- JAX: `SAME` at stride 2 pads the lower right side more; products on accelerators are shortened unless asked.
- PyTorch: `torch.clamp` has the derivative 1 at its bounds, `hardtanh` 0.
- MXNet: operators keep numbers such as slopes and eps as float32, so that 0.2 is another number in float64, and SELU's,
  GELU's and the derivative of erf's constants, too; `clip`
  hands the gradient on at its bounds; ceil mode keeps windows that lie wholly in the padding; the default of
  `BatchNorm`'s `fix_gamma` in the symbol API is true.
"""


def describe(case: Callable[[], None]) -> tuple[str, str, str]:
    """Title, text and source of a case, as the page has them."""
    source = textwrap.dedent(inspect.getsource(case))
    first, *rest = ast.parse(source).body[0].body
    title, _, text = ast.literal_eval(first.value).partition("\n\n")
    code = textwrap.dedent("\n".join(source.splitlines()[rest[0].lineno - 1 :]))
    # As a formatter wants it outside a function.
    code = re.sub(r"\n\n(?=def )|(?<=start)\n\n(?=\w)|(?<=sum\(\))\n\n(?=print)", "\n\n\n", code)
    return title, textwrap.dedent(text).strip(), code


def run_here(name: str) -> None:
    """Versions, then what the case prints."""
    packages = PACKAGES[name.partition("_")[0]]
    print(", ".join(f"{package} {version(package)}" for package in packages), flush=True)
    if packages[0] == "mxnet":
        with suppress(ImportError, PackageNotFoundError):  # not needed under NumPy 1
            import_module("triptych_mxnet.numpy_names")
    CASES[name]()


def run(name: str, python: str = sys.executable) -> str:
    """What a case prints in a process of its own, and how that ended, if not well."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, __file__, "--here", name], capture_output=True, text=True, env=environment)
    lines = done.stdout.splitlines()
    if done.returncode < 0:
        lines.append(f"(the process ended by {signal.Signals(-done.returncode).name})")
    elif done.returncode:
        lines.append(f"(failed: {done.stderr.strip().splitlines()[-1]})")
    return "\n".join(lines)


def page(outputs: dict[str, list[str]]) -> str:
    """docs/upstream.md of these cases and their outputs."""
    parts = [INTRODUCTION]
    for name, shown in outputs.items():
        title, text, source = describe(CASES[name])
        command = f"python benchmarks/upstream.py {name}"
        blocks = "\n\n".join(f"```text\n$ {command}\n{output}\n```" for output in shown)
        framework = {"torch": "PyTorch", "mxnet": "MXNet", "flax": "Flax"}[name.partition("_")[0]]
        parts.append(f"## {framework}: {title}\n\n{text}\n\n```python\n{source}\n```\n\n{blocks}\n")
    return "\n".join([*parts, DOCUMENTED])


def main(arguments: list[str]) -> int:
    """Exit status 2 for an unknown name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*CASES, []], metavar="NAME")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--torch")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.here:
        run_here(given.names[0])
        return 0
    outputs = {}
    for name in given.names or CASES:
        others = [given.torch] if given.torch and name.startswith("torch_") else []
        outputs[name] = [run(name, python) for python in (sys.executable, *others)]
        if not given.page:
            print(name, *outputs[name], sep="\n", end="\n\n", flush=True)
    if given.page:
        print(page(outputs), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
