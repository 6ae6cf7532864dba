"""PyTorch modules, by torch.export: the operators that run for one batch, in evaluation and in training.

Nothing runs on real tensors but a search for an input size, where none is said, and the module is left as it was."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from triptych.importers.steps import EVALUATION_ALONE, FOR_TRAINING, Imported, ImportRefusedError, Request
from triptych.importers.torch_network import is_for_training, network
from triptych.importers.torch_program import BATCH, Program, read
from triptych.importers.torch_script import replayed
from triptych.importers.torch_walk import COMPUTED, supported
from triptych.spec.layers import Shape

SIZES = (224, 299, 32, 28)  # of images, where nothing says it: ImageNet's two, CIFAR's, MNIST's
_STORES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")


def load(module: Any, request: Request) -> Imported:
    """The network of a torch.nn.Module and its weights. Without `request.input` images of the first of the usual sizes
    that the module takes. Raises ImportRefusedError for what is no network of the spec's layers."""
    import torch  # noqa: TID251

    if isinstance(module, torch.export.ExportedProgram):
        return network(read(module), None, request, name="exported", source="PyTorch: an exported program")
    module = unwrapped(module)
    title, modes = _title(module), True
    if isinstance(module, torch.jit.ScriptModule):
        title = f"TorchScript {module.original_name}"
        module, modes = replayed(module)
    remarks: list[str] = []
    _check(module)
    with unchanged(module):
        shape = request.input or _guessed(module, title, remarks)
        evaluation = read(_exported(module.eval() if modes else module, shape, title))
        training = _in_training(module, shape, title, evaluation, remarks) if modes else None
    if training is None:
        trains = is_for_training(evaluation)
        mode = f"{FOR_TRAINING}; here it has both modes" if trains else f"has one mode; {EVALUATION_ALONE}"
        remarks.append(f"{title}, traced or frozen, {mode}")
    name = title.rpartition(".")[2].rpartition(" ")[2].lower()
    return network(evaluation, training, request, name=name, source=f"PyTorch: {title}", remarks=remarks)


def load_file(path: Path, request: Request) -> Imported:
    """The network in a file of torch.export.save or torch.jit.save. Raises TriptychError, with what the file holds,
    where that is no network, and ImportRefusedError for what is no network of the spec's layers."""
    from triptych.importers import torch_files

    return torch_files.load(path, request)


def _in_training(module: Any, shape: Shape, title: str, evaluation: Program, remarks: list[str]) -> Program:
    try:
        return read(_exported(module.train(), shape, title))
    except ImportRefusedError as error:
        remarks.append(f"training could not be looked at: {error}; {EVALUATION_ALONE}")
        return evaluation


def unwrapped(module: Any) -> Any:
    """The module within DataParallel, DistributedDataParallel and torch.compile."""
    import torch  # noqa: TID251

    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(module, parallel):
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            return module


def evaluated(exported: Any) -> Any:
    """A module that runs a torch.export.ExportedProgram on any number of images, whose modes it does not know. Raises
    ImportRefusedError where it holds an operator that the importer does not know."""
    import torch  # noqa: TID251

    if is_for_training(read(exported)):
        raise ImportRefusedError("it was exported for training")
    strange = {call.operator for call in read(exported).calls.values()} - {*supported(), *COMPUTED}
    if strange:
        raise ImportRefusedError(f"it has operators that are not run: {', '.join(sorted(strange)[:5])}")
    program, size = exported.module(), read(exported).input_shape[0]

    class Evaluated(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.program = program

        def train(self, mode: bool = True) -> Any:
            return self

        def forward(self, x: Any) -> Any:
            parts = [self.program(x[[min(i + j, len(x) - 1) for j in range(size)]]) for i in range(0, len(x), size)]
            return torch.utils._pytree.tree_map(lambda *each: torch.cat(each)[: len(x)], *parts)

    return Evaluated()


@contextmanager
def quiet() -> Iterator[None]:
    """Without PyTorch's warnings, log lines and printed graphs, of which a refusal says what matters."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def unchanged(module: Any) -> Iterator[None]:
    """Whatever happens to the module meanwhile is undone: modes, attributes, buffers, gradients, what needs them."""
    import torch  # noqa: TID251

    parts = [(part, dict(part.__dict__)) for part in module.modules()]
    stores = [
        (store, dict(store)) for part, _ in parts for store in map(part.__dict__.get, _STORES) if store is not None
    ]
    tensors = [*module.parameters(), *module.buffers()]
    flags = [(tensor, tensor.requires_grad, tensor.grad) for tensor in tensors]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for part, attributes in parts:
            part.__dict__.clear()
            part.__dict__.update(attributes)
        for store, entries in stores:
            store.clear()
            store.update(entries)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for tensor, requires_gradient, gradient in flags:
            tensor.requires_grad_(requires_gradient)
            tensor.grad = gradient


def _title(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _check(module: Any) -> None:
    """Refuses what the exported program does not show, or cannot be made of."""
    import torch  # noqa: TID251

    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if torch.nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise ImportRefusedError(
                f"the parameter {name!r} has no values yet; run the module once, or load its weights"
            )
    for path, part in module.named_modules():
        if hasattr(part, "running_mean") and getattr(part, "momentum", 0.0) is None:
            raise ImportRefusedError(
                f"{path!r}: its momentum is None, a mean over all batches; a spec has a fixed momentum"
            )


def _example(module: Any, shape: Shape, images: int = BATCH) -> Any:
    import torch  # noqa: TID251

    first = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(images, *shape, dtype=first.dtype, device=first.device)


def _exported(module: Any, shape: Shape, title: str) -> Any:
    """The module's program; of its symbolic trace, where it cannot be exported itself."""
    import torch  # noqa: TID251

    example = (_example(module, shape),)
    with quiet():
        try:
            return torch.export.export(module, example, strict=False)
        except ImportRefusedError:
            raise
        except Exception as error:
            try:
                return torch.export.export(torch.fx.symbolic_trace(module), example, strict=False)
            except Exception:
                raise ImportRefusedError(_one_line(title, shape, error)) from error


def _one_line(title: str, shape: Shape, error: Exception) -> str:
    kind = type(error).__name__
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), kind)[:300]
    hint = (
        "control flow that depends on the images is not supported"
        if "Guard" in kind or "DataDep" in kind
        else "see --input"
    )
    return f"torch.export does not take {title} on images {shape}: {first} ({kind}; {hint})"


def _guessed(module: Any, title: str, remarks: list[str]) -> tuple[int, int, int]:
    """An input that the module takes, by trying."""
    import torch  # noqa: TID251

    channels = _channels(module)
    module.eval()
    for size in SIZES:
        for number in channels:
            try:
                with torch.no_grad(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    module(_example(module, (number, size, size), 1))
            except Exception:
                continue
            remarks.append(
                f"the module does not say its input; {number}x{size}x{size} was assumed (--input says another)"
            )
            return number, size, size
    tried = ", ".join(f"{number}x{size}x{size}" for number in channels for size in SIZES)
    raise ImportRefusedError(f"{title} takes none of the images {tried}; say which with --input CHANNELSxHEIGHTxWIDTH")


def _channels(module: Any) -> tuple[int, ...]:
    """How many channels images may have: what the first convolution takes, if there is one."""
    first = next((m for m in module.modules() if hasattr(m, "in_channels") and hasattr(m, "groups")), None)
    return (3, 1) if first is None else (first.in_channels,)
