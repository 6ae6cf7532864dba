"""`locate`: the first layer, and the level, at which two subjects diverge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych import zoo
from triptych.cli import options
from triptych.cli.arch import read, resolve
from triptych.cli.options import NetworkOptions
from triptych.utils.errors import TriptychError, check_known

if TYPE_CHECKING:
    from triptych.conformance.locate import Located
    from triptych.importers.steps import Imported
    from triptych.porting.beside import Beside
    from triptych.porting.strangers import Options as OwnOptions

REFERENCE = "reference"
LAYOUTS = ("NCHW", "NHWC")
PRECISIONS = ("fp64", "fp32", "fp16", "bf16")


@Parameter(name="*")
@dataclass
class OwnTraining:
    """What a network of your own is trained with, and what each is compared with."""

    left_optimizer: Annotated[
        str | None,
        Parameter(
            help="module:name of your optimiser, or of a function of the network (or of its parameters) that makes it, "
            "with its schedule if it returns both: several steps are compared."
        ),
    ] = None
    right_optimizer: Annotated[
        str | None,
        Parameter(
            help="What it should be: 'sgd:learning_rate=0.1,momentum=0.9 step:every=3', a recipe's name, or "
            "module:name for the network at the right."
        ),
    ] = None
    left_loss: Annotated[
        str | None,
        Parameter(help="module:name of your loss of (outputs, labels): cross-entropy, the mean of a batch, is right."),
    ] = None
    left_preprocess: Annotated[
        str | None, Parameter(help="module:name of your function of uint8 images (N, h, w, C), or of one of them.")
    ] = None
    right_preprocess: Annotated[
        str | None,
        Parameter(
            help="What it should be: 'mean=0.485,0.456,0.406 std=0.229,0.224,0.225', a recipe's name, or module:name."
        ),
    ] = None

    def beside(self) -> Beside | None:
        """As `triptych.porting` has it; None where nothing is given."""
        if not any(vars(self).values()):
            return None
        from triptych.porting.beside import Beside

        given = {name.removeprefix("left_"): text for name, text in vars(self).items()}
        for name in ("optimizer", "loss", "preprocess"):
            if given[name] is not None and ":" not in given[name]:
                raise TriptychError(f"--left-{name} {given[name]} is not module:name, for example my_package:{name}")
        return Beside(**given)


NO_TRAINING = OwnTraining()


def locate(
    *,
    left: Annotated[str, Parameter(help="A backend, or your own network as module:name, or its file.")] = "torch",
    right: Annotated[str, Parameter(help="reference, a backend, or anything that --arch takes.")] = REFERENCE,
    arch: Annotated[str | None, Parameter(help="Architecture; vgg11 if neither of the two says which.")] = None,
    mode: Annotated[str, Parameter(help="resynchronised (each layer alone) or accumulated.")] = "resynchronised",
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    precision: Annotated[str, Parameter(help="fp64, fp32; fp16 or bf16 where yours has such layers.")] = "fp64",
    device: Annotated[str, Parameter(help="cpu, cuda or cuda:i.")] = "cpu",
    seed: options.Seed = 0,
    optimizers: Annotated[
        str | None, Parameter(help="all, or momentum; momentum alone for a network of another size.")
    ] = None,
    layout: Annotated[str | None, Parameter(help="Images of your network: NCHW or NHWC (JAX's default).")] = None,
    mapping: Annotated[Path | None, Parameter(help="JSON file: your parameter's name to the spec's path.")] = None,
    ignore: Annotated[
        tuple[str, ...], Parameter(help="Patterns of your parameters, or the spec's, that are not compared: 'aux*'.")
    ] = (),
    propose_mapping: Annotated[
        Path | None, Parameter(help="File for what is known of the pairing, to edit and give as --mapping.")
    ] = None,
    left_weights: Annotated[
        str, Parameter(help="spec: yours are replaced by the spec's; own: they are compared with the source's, too.")
    ] = "spec",
    check_init: Annotated[
        options.Flag, Parameter(help="Compare what your network starts from with the spec's initializer, too.")
    ] = False,
    try_: Annotated[
        options.Flag,
        Parameter(name="--try", help="Try the edit that the cause asks for on a copy of your source in memory."),
    ] = False,
    training: OwnTraining = NO_TRAINING,
    json: options.JsonFile = None,
) -> int:
    """Name the first layer and the level (forward, gradient, update) at which two subjects diverge, and the cause.

    A subject is a backend, the reference, or your own network: module:name of a PyTorch module, a Gluon block, a Flax
    module, or of a function that builds one. It is given the spec's weights. Of two networks, modules or files, one is
    imported and becomes the spec. Optimiser, loss and preprocessing of your own are compared where you name them. Exit
    status 1 if they diverge.
    Example: triptych locate --left my_package:build_torch --right vgg16
    """
    from triptych.porting import edits, strangers

    if try_:
        edits.check(left)
    check_choices(mode, precision, optimizers, layout)
    check_known("--left-weights", [left_weights], ("spec", "own"))
    chosen = strangers.Options(
        *(layout, mapping, precision, seed, ignore, propose_mapping, left_weights == "own", check_init),
        beside=training.beside(),
    )
    for_backends = device != "cpu" or optimizers is not None
    for_own = chosen != strangers.Options(precision=precision, seed=seed)
    if are_strangers(left, right):
        check_strangers(left, right, arch, network, for_backends=for_backends)
        located = of_strangers(left, right, network, chosen)
    else:
        name, left, right = subjects(left, right, arch)
        check_subjects(name, left, right, precision, for_backends=for_backends, for_own=for_own)
        if ":" in left:
            located = of_own(left, name, network, chosen)
        else:
            located = of_backends(left, right, name, mode, network, precision, device, seed, optimizers)
    located = edited(located, left, right, network, chosen, tried=try_)
    options.write_json(json, as_dict(located))
    if json != "-":
        show(located)
    return 0 if located.difference is None else 1


def edited(
    located: Located, left: str, right: str, network: NetworkOptions, chosen: OwnOptions, *, tried: bool
) -> Located:
    """The verdict with the edit of the left network's source that its cause asks for."""
    from triptych.porting import edits, own_network, strangers

    if ":" not in left or Path(left).exists():
        return located
    spec = located.arch if right == REFERENCE else right
    taken = vars(chosen) | {"own_weights": False, "check_init": False, "propose": None, "beside": None}

    def judge(candidate: Any) -> Located:
        architecture = read(spec, network).architecture
        return own_network.locate_port(candidate, architecture, name=left, **taken)

    return edits.with_edit(located, left, judge, tried) if strangers.is_module(left) else located


def are_strangers(left: str, right: str) -> bool:
    """Whether both name networks, and neither is the zoo's beside somebody's module, which is compared with it."""
    from triptych.porting import strangers

    networks = [subject for subject in (left, right) if strangers.is_network(subject)]
    files = [subject for subject in networks if not strangers.is_module(subject)]
    return len(networks) == 2 or bool(files and {left, right} & set(zoo.registry()))


def check_strangers(left: str, right: str, arch: str | None, network: NetworkOptions, *, for_backends: bool) -> None:
    """Raises TriptychError for options that two networks have no use for."""
    if left == right:
        raise TriptychError(f"--left and --right are both '{left}'; name two networks")
    if arch is not None:
        raise TriptychError(f"--arch {arch} is for backends; of two networks one becomes the spec: leave it out")
    if network.weights is not None:
        raise TriptychError("--weights is for one network; each of two brings its own: leave it out")
    if for_backends:
        raise TriptychError("--device and --optimizers are for backends; your own network runs on the CPU")


def of_strangers(left: str, right: str, network: NetworkOptions, chosen: OwnOptions) -> Located:
    """Two networks; see `triptych.porting.strangers`."""
    from triptych.porting import strangers

    def read_with(name: str, keep_softmax: bool) -> Imported:
        return read(name, replace(network, keep_softmax=network.keep_softmax or keep_softmax))

    return strangers.locate(left, right, read_with, chosen)


def of_own(own: str, arch: str, network: NetworkOptions, chosen: OwnOptions) -> Located:
    """Somebody's module against an architecture."""
    from triptych.porting import discover, own_network
    from triptych.porting.matching import read_mapping

    right, names = resolve(arch, network), read_mapping(chosen.mapping)
    taken = vars(chosen) | {"mapping": names, "weights": right.parameters}
    return own_network.locate_port(discover.find(own), right.architecture, name=own, **taken)


def of_backends(
    left: str,
    right: str,
    arch: str,
    mode: str,
    network: NetworkOptions,
    precision: str,
    device: str,
    seed: int,
    optimizers: str | None,
) -> Located:
    """A backend against another, or against the reference."""
    from triptych.conformance import locate as search
    from triptych.conformance.case import BATCH
    from triptych.conformance.updates import UPDATES
    from triptych.spec import footprint

    small = network == options.DEFAULT_NETWORK  # five more optimisers would take minutes on a network of full width
    updates = UPDATES if optimizers == "all" or (optimizers is None and small) else ("momentum",)
    architecture = resolve(arch, network, small=True).architecture
    footprint.check_judged(architecture, BATCH)
    return search.locate_backends(
        left, right, architecture, mode, updates=updates, precision=precision, device=device, seed=seed
    )


def subjects(left: str, right: str, arch: str | None) -> tuple[str, str, str]:
    """The architecture, and the two subjects, the reference as the right one. Raises TriptychError for what names no
    two of them."""
    if left == right:
        raise TriptychError(f"--left and --right are both '{left}'; name two subjects")
    from triptych.backend.registry import BACKENDS

    kind = "architecture, backend or reference" if ":" in left + right else "backend"
    for subject in (left, right):
        if ":" not in subject:
            check_known(kind, [subject], [*zoo.registry(), *BACKENDS, REFERENCE])
    named = [subject for subject in (left, right) if subject in zoo.registry()]
    names = dict.fromkeys([*named, *([arch] if arch else [])])
    if len(names) > 1:
        raise TriptychError(f"--left, --right and --arch name several architectures: {', '.join(names)}")
    left, right = (REFERENCE if subject in named else subject for subject in (left, right))
    left, right = (right, left) if left == REFERENCE else (left, right)
    if left == REFERENCE:
        raise TriptychError("both are the reference; name a backend or your own network as --left")
    return next(iter(names), "vgg11"), left, right


def check_choices(mode: str, precision: str, optimizers: str | None, layout: str | None) -> None:
    """Raises TriptychError for a word that an option does not know."""
    from triptych.conformance.locate import MODES

    check_known("--mode", [mode], MODES)
    check_known("--precision", [precision], PRECISIONS)
    if optimizers not in (None, "all", "momentum"):
        raise TriptychError(f"--optimizers '{optimizers}' must be all or momentum")
    check_known("--layout", [] if layout is None else [layout], LAYOUTS)


def check_subjects(arch: str, left: str, right: str, precision: str, *, for_backends: bool, for_own: bool) -> None:
    """Raises TriptychError for subjects that do not go together, or with options `for_backends` or `for_own` networks
    only, before anything is looked for, built or loaded."""
    from triptych.backend import registry

    ported = [subject for subject in (left, right) if ":" in subject]
    if ported and right != REFERENCE:
        raise TriptychError(f"'{ported[0]}' is compared with an architecture: write --left {ported[0]} --right {arch}")
    if ported and for_backends:
        raise TriptychError("--device and --optimizers are for backends; your own network runs on the CPU")
    if not ported and precision not in ("fp64", "fp32"):
        raise TriptychError(f"--precision {precision} cannot be judged on a backend; give fp64 or fp32")
    if not ported and for_own:
        raise TriptychError(
            "--layout, --mapping, --ignore and the like are for your own network; give it as --left module:name"
        )
    for name in () if ported else (left, right):
        if name != REFERENCE:
            registry.check_installed(name)


def show(located: Located) -> None:
    """The verdict in a few lines."""
    difference = located.difference
    print(f"{located.left} - {located.right}, {located.arch}, {located.precision}, {located.mode}")
    for line in located.notes:
        print(f"  {line}")
    if difference is None:
        print(f"  no difference: {', '.join(located.levels)} agree")
    else:
        check = difference.check
        place = f"layer '{difference.layer}'" if difference.layer else "no layer of its own"
        print(f"  first difference: {place}, level {difference.level}")
        scale = "" if check.problem else f", largest value {check.scale:.3e}"
        print(f"  shown by: {check.tensor}: {check.text}{scale}")
        if difference.note:
            print(f"  note: {difference.note}")
        if difference.at_fault and REFERENCE not in (located.left, located.right):
            print(f"  departs from the reference: {', '.join(difference.at_fault)}")
        print(f"  likely cause: {difference.cause or 'none of the catalogue fits'}")
    for level, reason in located.not_run.items():
        print(f"  not run: {level} ({reason})")


def as_dict(located: Located) -> dict[str, Any]:
    """The verdict as JSON has it, with the check that shows the difference among what else is known of it."""
    from triptych.spec.records import encode

    value = encode(located)
    if located.difference is not None:
        difference, check = value["difference"], value["difference"].pop("check")
        value["difference"] = difference | {"cause": located.difference.cause or None, **check}
    return {**value, "agree": located.difference is None}
