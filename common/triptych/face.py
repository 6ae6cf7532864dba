"""The verbs of `import triptych`: the commands' work as functions, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from triptych import zoo
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.backend.contract import Native
    from triptych.conformance.locate import Located
    from triptych.conformance.suite import Verdict
    from triptych.emitting.emit import Emitted
    from triptych.emitting.port import PortedFolder
    from triptych.importers.steps import Imported
    from triptych.porting.convert import Conversion
    from triptych.training.recipe import Recipe
    from triptych.training.sessions import Session

AnyNetwork: TypeAlias = Any  # a name, path, Architecture, or somebody's module


def load(arch: AnyNetwork, **options: Any) -> Architecture:
    """A network as data: frozen records of its layers.

    `arch` is a name of the zoo (`triptych archs`); a run folder; a file: a spec (`.json`), an MXNet symbol
    (`-symbol.json`), an ONNX, Keras or exported PyTorch model; `module:name`; a PyTorch or Flax module, a Gluon block;
    or an Architecture, which is returned as it is. `options` for the zoo: `input=(channels, height, width)`, `classes`,
    `width_ratio`, `dense_width`, `head`; for files and modules: `input`, `outputs` (names of nodes), `keep_softmax`.
    Raises TriptychError for an unknown name, with the nearest match, for a network that cannot be taken over, and for
    options that do not fit.
    """
    return _imported(arch, options).architecture


def build(
    arch: AnyNetwork,
    *,
    backend: str = "torch",
    device: str = "cpu",
    precision: str = "fp32",
    seed: int = 0,
    **options: Any,
) -> Native:
    """The native network of a framework: a `torch.nn.Module`, a `gluon.HybridBlock` or a `flax.nnx.Module`.

    It takes images `(N, channels, height, width)` and returns logits `(N, classes)`, whatever the framework's own
    layout. Weights start as the architecture's initializer says, drawn from `seed`: the same bits in every backend;
    a run folder's are its last checkpoint's, a file's or module's its own. Raises TriptychError for a backend, device
    or precision that is not there.
    """
    from triptych.backend import registry
    from triptych.backend.execution import Execution
    from triptych.weights import initializers

    imported = _imported(arch, options)
    architecture, parameters = imported.architecture, imported.parameters
    framework = registry.load(backend)
    network = framework.build(architecture, device=device, execution=Execution(precision=precision))
    drawn = initializers.draw(architecture, seed, architecture.initializer) if parameters is None else parameters
    framework.from_canonical(network, drawn)
    return network


def conform(
    arch: AnyNetwork,
    *,
    backends: Sequence[str] | None = None,
    precisions: Sequence[str] = ("fp64", "fp32"),
    device: str = "cpu",
    seed: int = 0,
    **options: Any,
) -> Verdict:
    """Judge a network on the backends of these names (None: all that are installed) against the float64 reference and
    against each other: structure, input, forward, gradients, updates.

    A name of the zoo without options is judged narrow and small but complete, as `triptych conform` does; anything
    else in the size that it has. `verdict.passed` is the result, `verdict.reports` hold every check with its difference
    and budget.
    """
    from triptych.backend import registry
    from triptych.conformance import suite

    names = registry.installed() if backends is None else [backends] if isinstance(backends, str) else backends
    architecture = _conformance_size(arch, options)
    loaded = [registry.load(name) for name in names]
    return suite.run(architecture, loaded, precisions=precisions, seed=seed, device=device)


def locate(
    left: Any,
    right: str | Architecture = "reference",
    *,
    arch: AnyNetwork = "vgg11",
    precision: str = "fp64",
    seed: int = 0,
    **options: Any,
) -> Located:
    """The first layer, and the level, at which two networks diverge; `located.difference` is None where they agree.

    `left` is a backend's name, or a network of your own: a PyTorch module, a Gluon block, a Flax NNX or Linen module,
    or `(function, parameters)` with a JAX function. A backend is compared with `right`, another backend or the
    reference, on `arch`; your own network with the Architecture (or name of the zoo) given as `right`. It gets the
    case's weights, and its own again afterwards. `options` for your own: `layout` ("NCHW" or "NHWC"), `mapping` (its
    parameters' names to the spec's paths), `ignored` (patterns of what is not compared), and what it is trained with:
    `beside={"optimizer": make, "right_optimizer": "sgd:learning_rate=0.1", "loss": ..., "preprocess": ...,
    "right_preprocess": ...}`, as the command's options of these names take them, or as objects; for backends `mode`,
    `updates`, `device`.
    """
    from triptych.conformance import locate as search

    if isinstance(left, str):
        architecture = _conformance_size(arch, {})
        return search.locate_backends(left, str(right), architecture, precision=precision, seed=seed, **options)
    from triptych.porting import own_network
    from triptych.porting.beside import Beside

    if "beside" in options:
        options["beside"] = Beside(**options["beside"])
    if right == search.REFERENCE:
        raise TriptychError("your own network is compared with an architecture: give it, or its name, as the second")
    return own_network.locate_port(left, load(right), precision=precision, seed=seed, **options)


def emit(arch: AnyNetwork, *, backend: str = "torch", **options: Any) -> Emitted:
    """A network as one idiomatic source file of a framework, which needs no triptych: `emitted.source`.

    Its function `load(path)` takes a safetensors file of `emitted.state(parameters)`, canonical parameters under the
    names that they have there. `options` as for `load`.
    """
    from triptych.emitting import emit as emitting

    return emitting.emit(load(arch, **options), backend)


def port(arch: AnyNetwork, folder: str | Path, *, to: Sequence[str] | None = None, **options: Any) -> PortedFolder:
    """Write a network as native source files with weights of the backends `to` (None: all that are installed) into a
    new folder, and judge each as it lies there, and the source in its own framework; `options` as for `load`.

    `port.passed` is the result, `port.ported` what was found by backend. The folder has a README and a certificate,
    which `triptych verify` runs again. Raises TriptychError for a folder that is there already.
    """
    from triptych.backend import registry
    from triptych.emitting import port as porting
    from triptych.emitting.port_folder import PortSource

    names = registry.installed() if to is None else [to] if isinstance(to, str) else to
    named = isinstance(arch, str | Path)
    ends = ", ".join(options.get("outputs", ()))
    imported = _imported(arch, options)
    name, candidate = (str(arch), imported.origin) if named else (type(arch).__name__, arch)
    source = PortSource(name, candidate=candidate, ends=ends)
    return porting.port(imported, source, names, Path(folder))


def train(
    recipe: str | Recipe = "d2l-vgg",
    *,
    backend: str = "torch",
    device: str = "cpu",
    out: str | Path | None = None,
    **changes: Any,
) -> Session:
    """Train a recipe on one backend, without a word; `changes` are fields of the recipe (`epochs=1`,
    `seed=3` ...) or of its network (`width_ratio=8`, `size=(64, 64)`).

    With `out`, a new folder, every epoch is saved there and `load`, `build` and the commands take it. The session holds
    the native `network` and its `epochs` (losses and accuracies). Raises DivergedError when a loss is not finite.
    """
    from triptych import data
    from triptych.backend import registry
    from triptych.training import capacity, keeping, loop, recipes, run_folder, sessions
    from triptych.training.recipe import vary

    chosen = vary(recipes.get_recipe(recipe) if isinstance(recipe, str) else recipe, **changes)
    if out is not None:
        run_folder.check_free(Path(out))
    sessions.check_start(chosen)
    capacity.check_training(chosen, device)
    framework = registry.load(backend)
    sessions.check_execution([framework], device, chosen.precision)
    session = sessions.start(framework, chosen, data.load(chosen.data, reading=chosen.reading), device=device)
    if out is not None:
        keeping.keep_in(session, Path(out))
    loop.fit(session, loop.Listener())
    return session


def convert(
    source: AnyNetwork,
    target: str | Path,
    *,
    arch: AnyNetwork = None,
    to: str | None = None,
    mapping: Path | dict[str, str] | None = None,
    flatten: str | None = None,
    allow_unmatched: bool = False,
    compare: bool = True,
    **options: Any,
) -> Conversion:
    """Write weights in another framework's format, names and axes; the file is read back and compared bit for bit.

    `source` is a network with weights, as `load` takes it, or, with `arch`, a file of that network's weights, or a run.
    The ending of `target` says the format: `.safetensors`, `.pt` (PyTorch), `.params` (MXNet), `.npz`, `.msgpack`
    (Flax), `.weights.h5` (Keras), `.orbax` (a folder of Orbax); `to` the names: canonical, torch, gluon,
    gluon-exported, flax, linen, keras. `mapping`: names in the file to the spec's paths, or a JSON file of them.
    `flatten`: how a Flax or Keras network flattens a map, "hwc" (their own way) or "chw". `options` are those of
    `load`. `compare`: run a network with the written weights, too, if its framework is installed (`outputs` of the
    result). Raises TriptychError for what does not fit or is ambiguous, and, unless `allow_unmatched`, for arrays
    without a partner.
    """
    from triptych.porting import convert as conversion
    from triptych.porting.matching import read_mapping

    names, path = read_mapping(mapping), Path(target)
    conversion.check_target(path, to, flatten)
    if arch is None:
        imported = _imported(source, options)
        symbol = conversion.symbol_of(source, imported.architecture, None, options)
        return conversion.from_network(
            imported, path, to=to, mapping=names, flatten=flatten, compare=compare, symbol=symbol
        )
    architecture = load(arch, **options)
    return conversion.from_file(
        Path(source),
        architecture,
        path,
        to=to,
        mapping=names,
        flatten=flatten,
        allow_unmatched=allow_unmatched,
        compare=compare,
        symbol=conversion.symbol_of(arch, architecture, None, options),
    )


def _imported(arch: AnyNetwork, options: dict[str, Any]) -> Imported:
    """The network, and its own weights where it has some."""
    from triptych.importers.steps import Imported, Request
    from triptych.porting import sources

    if isinstance(arch, str | Path) and sources.is_zoo(str(arch)):
        return Imported(zoo.build(str(arch), **options), None)
    known = {"input", "outputs", "keep_softmax"} if not isinstance(arch, Architecture) else set()
    if wrong := options.keys() - known:
        raise TriptychError(f"{', '.join(sorted(wrong))}: options are for a name of the zoo; this network is complete")
    if isinstance(arch, str | Path):
        return sources.read(str(arch), Request(**options))
    return sources.from_object(arch, type(arch).__name__, None, Request(**options))


def _conformance_size(arch: AnyNetwork, options: dict[str, Any]) -> Architecture:
    from triptych.conformance.case import conformance_architecture

    named = isinstance(arch, str) and arch in zoo.registry()
    return conformance_architecture(str(arch)) if named and not options else load(arch, **options)
