"""What JAX compiles: pure functions of arrays, with the options of the network's execution.

A network is split into its definition, which a function is compiled for, and its arrays by Flax's paths.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding

from triptych.backend.contract import Gather
from triptych.backend.execution import Execution
from triptych.optim.optimizers import Optimizer
from triptych.utils.randomness import derive_seed
from triptych_jax.functions import channels_first, channels_last, nodes
from triptych_jax.input import Input
from triptych_jax.layers import Dropout
from triptych_jax.loss import Tensors, total_loss
from triptych_jax.model import COMPOSITES, Arrays, Network, Outputs, first
from triptych_jax.optimizer import Leaves, Updater
from triptych_jax.shared import Spread, WholePass, spread_pass, synchronise

# Of a function that runs once or twice compiling is all its time: without optimisation it is a quarter, and as one
# module instead of 32 for as many threads two thirds of that. XLA refuses options that it does not know, and dropped
# the fusion emitters' in JAX 0.11.
_EMITTERS = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
_QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1, **_EMITTERS}
OPTIONS: dict[str, dict[str, Any] | None] = {"full": None, "quick": _QUICK, "fused": None, "graphs": None}

Masks: TypeAlias = Mapping[str, jax.Array]  # of dropout layers, by path


class Pass(NamedTuple):
    """A training pass; `figures` are the loss and the number of right answers. What a step does not take, the images'
    gradient and the layers' outputs, costs nothing where pass and update are compiled as one: XLA leaves it out."""

    figures: jax.Array
    gradients: Arrays
    statistics: Arrays
    input_gradient: jax.Array
    outputs: Outputs


def jit(
    execution: Execution, placed: NamedSharding | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`jax.jit` as the execution says; `placed` is where all results are, if not where JAX puts them by itself."""
    where = {} if placed is None else {"out_shardings": placed}
    return partial(jax.jit, compiler_options=OPTIONS[execution.compilation], **where)


def feed_dropout(module: nnx.Module, masks: Masks, key: jax.Array, part: tuple[jax.Array, int] | None = None) -> None:
    """Feed the masks to the dropout layers that they name; the others draw from `key`, each its own, for the whole
    batch that `part` is of."""
    for name, layer in dropouts(module):
        layer.part = part
        if name in masks:
            layer.mask = masks[name]
        else:
            layer.key = jax.random.fold_in(key, derive_seed(0, name))


def dropouts(module: nnx.Module) -> list[tuple[str, Dropout]]:
    """The dropout layers by path."""
    return [(".".join(path), layer) for path, layer in nodes(module) if isinstance(layer, Dropout)]


def definition_of(module: nnx.Module) -> nnx.GraphDef:
    """What a module is without its arrays, for a compiled function to which parameters and statistics are given;
    dropout's own generators, which are arrays too, are not part of it."""
    owners = [node for _, node in nodes(module) if isinstance(node, Dropout)]
    generators = [owner.rngs for owner in owners]
    for owner in owners:
        owner.rngs = nnx.data(None)
    definition = nnx.graphdef(module)
    for owner, generator in zip(owners, generators, strict=True):
        owner.rngs = generator
    return definition


def pass_function(
    definition: nnx.GraphDef, smoothing: float, spread: Spread | None = None
) -> Callable[..., Pass | WholePass]:
    """`(parameters, constants, x, targets, masks, seed, part) -> Pass` of a network; not compiled yet. `constants` are
    what no gradient is taken by: running statistics and frozen parameters. `part` is `Dropout.part`. Of a batch that is
    `spread`, the `WholePass`."""

    def training_pass(
        parameters: Arrays,
        constants: Arrays,
        x: jax.Array,
        targets: Tensors,
        masks: Masks,
        seed: jax.Array,
        part: tuple[jax.Array, int] | None = None,
    ) -> Pass:
        key = jax.random.key(seed, impl="threefry2x32")

        def loss_of(parameters: Arrays, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, Arrays, Outputs]]:
            network: Network = nnx.merge(definition, nnx.from_flat_state({**parameters, **constants}))
            feed_dropout(network, masks, key, part)
            synchronise(network, spread)
            outputs: Outputs = {}
            output = network(x, outputs)
            right = 0 if isinstance(targets, tuple) else (first(output).argmax(1) == targets).sum()
            statistics = network.arrays(nnx.BatchStat)
            return total_loss(network, output, targets, smoothing), (right, statistics, outputs)

        differentiate = jax.value_and_grad(loss_of, (0, 1), has_aux=True)
        (loss, (right, after, outputs)), (gradients, dx) = differentiate(parameters, x)
        figures = jnp.stack([loss, jnp.asarray(right, loss.dtype)])
        return Pass(figures, gradients, after, dx, outputs)

    return training_pass if spread is None else spread_pass(training_pass, spread)


# No default in what is cached: an argument that is left out and one that is None are two entries, and two programs.
@lru_cache(maxsize=16)  # a second trainer of the same network compiles nothing
def compile_pass(
    definition: nnx.GraphDef, execution: Execution, smoothing: float, spread: Spread | None
) -> Callable[..., Any]:
    """The training pass: every step's, and what inspection looks at."""
    return jit(execution)(pass_function(definition, smoothing, spread))


@lru_cache(maxsize=32)
def compile_micro_batch(
    definition: nnx.GraphDef,
    execution: Execution,
    smoothing: float,
    whole: int,
    placed: NamedSharding | None,
    spread: Spread | None,
) -> Callable[..., Any]:
    """`(inputs of the pass, begin, weight, sums) -> (sums, statistics)`: the pass on some images of a batch of `whole`.
    `sums` are the figures and gradients so far, None at the first."""
    run = pass_function(definition, smoothing, spread)

    @jit(execution, placed)
    def add(inputs: tuple[Any, ...], begin: jax.Array, weight: jax.Array, sums: Any) -> Any:
        passed = run(*inputs, (begin, whole))
        figures = passed.figures * jnp.stack([weight, jnp.ones_like(weight)]).astype(passed.figures.dtype)
        mine = figures, jax.tree.map(lambda value: value * weight.astype(value.dtype), passed.gradients)
        return mine if sums is None else jax.tree.map(jnp.add, sums, mine), passed.statistics

    return add


@lru_cache(maxsize=64)  # conformance asks for 29 in turn: with fewer places it would find none again
def compile_update(
    execution: Execution, optimizer: Optimizer, leaves: Leaves, placed: NamedSharding | None
) -> Callable[..., Any]:
    """The update: every step's, and alone that of gradients that are there already."""
    return jit(execution, placed)(Updater.update_function(optimizer, leaves))


@lru_cache(maxsize=64)
def compile_step(
    definition: nnx.GraphDef,
    execution: Execution,
    optimizer: Optimizer,
    leaves: Leaves,
    smoothing: float,
    placed: NamedSharding | None,
    spread: Spread | None,
) -> Callable[..., Any]:
    """Pass and update. In full compilation they become one function: two cost a tenth of a small network's step. In a
    quick one they stay two: with every further optimiser only the update is compiled."""
    run = compile_pass(definition, execution, smoothing, spread)
    update = compile_update(execution, optimizer, leaves, placed)

    def step(inputs: tuple[Any, ...], kept: dict[str, Arrays], count: jax.Array, rates: tuple[Any, Any]) -> Any:
        # Nothing is donated: after an interrupted step the network must still be there to be saved.
        passed = run(*inputs)
        moved, kept = update((inputs[0], passed.gradients), kept, count, rates)
        return passed.figures, passed.statistics, moved, kept

    return step if execution.compilation == "quick" else jit(execution, placed)(step)


@lru_cache(maxsize=16)
def compile_prediction(definition: nnx.GraphDef, execution: Execution, input: Input) -> Callable[..., Any]:
    """`(arrays, stored images) -> logits`."""

    @jit(execution)
    def run(arrays: Arrays, images: jax.Array) -> jax.Array:
        network: Network = nnx.merge(definition, nnx.from_flat_state(arrays))
        return first(network(input(images)))

    return run


@lru_cache(maxsize=32)
def compile_input(execution: Execution, input: Input) -> Callable[..., jax.Array]:
    """`(stored images, gather or None) -> x`."""

    @jit(execution)
    def prepare(images: jax.Array, gather: Gather | None) -> jax.Array:
        return input(images, gather)

    return prepare


@lru_cache(maxsize=8)
def compile_evaluation(definition: nnx.GraphDef, execution: Execution) -> Callable[..., Outputs]:
    """`(arrays, x) -> outputs of every layer`."""

    @jit(execution)
    def run(arrays: Arrays, x: jax.Array) -> Outputs:
        outputs: Outputs = {}
        network: Network = nnx.merge(definition, nnx.from_flat_state(arrays))
        network(x, outputs)
        return outputs

    return run


@lru_cache(maxsize=256)
def compile_layer_pass(definition: nnx.GraphDef, execution: Execution) -> Callable[..., Any]:
    """`(parameters, statistics, x, gradient, masks) -> (y, dx, gradients)` of one layer, channels first outside."""

    @jit(execution)
    def run(
        parameters: Arrays, statistics: Arrays, x: jax.Array, gradient: jax.Array | None, masks: Masks
    ) -> tuple[jax.Array, jax.Array | None, Arrays]:
        def forward(parameters: Arrays, x: jax.Array) -> jax.Array:
            layer = nnx.merge(definition, nnx.from_flat_state({**parameters, **statistics}))
            feed_dropout(layer, masks, jax.random.key(0))
            x, composite = channels_last(x), type(layer) in COMPOSITES.values()
            y = layer(x, {}, None) if composite else layer(x)
            return channels_first(first(y))

        if gradient is None:
            return forward(parameters, x), None, {}
        y, pull = jax.vjp(forward, parameters, x)
        gradients, dx = pull(gradient)
        return y, dx, gradients

    return run
