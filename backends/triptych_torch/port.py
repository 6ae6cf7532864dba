"""Somebody's own `torch.nn.Module`, watched while it runs; see `triptych.backend.contract`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from triptych.backend.contract import Captured, Drawn, PortParameter, PortRun
from triptych.backend.execution import Execution, dtype_of
from triptych.importers import torch_export, torch_files
from triptych.importers.steps import Imported, Request
from triptych.optim.optimizers import Rates
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.utils.frames import selves
from triptych.utils.shelf import Shelf
from triptych.weights.layouts import TORCH
from triptych_torch.device import DTYPES
from triptych_torch.precision import apply_execution
from triptych_torch.watch import KINDS, NOT_FLAT, PRODUCTS, WEIGHTED, Watch, axes_of_view, tensors_in
from triptych_torch.weights import to_numpy

OWN_AXES = (nn.Conv2d, nn.Linear)  # a view of their weight in other axes is a fault
OPENS = (".pt2", ".pt", ".pth", ".ts")
FILES_TRAIN = False


def matches(candidate: Any) -> bool:
    """A module of this framework."""
    return isinstance(candidate, nn.Module)


def import_network(candidate: nn.Module, request: Request) -> Imported:
    """The module as its exported program has it."""
    return torch_export.load(candidate, request)


def open_file(path: Path, weights: Path | None, *, bare: bool, training: bool = True) -> nn.Module:
    """The module of a TorchScript file, which has its own weights; for evaluation, of an exported program too."""
    if not training:
        return torch_files.runnable(path)
    if path.suffix == ".pt2":
        raise TriptychError("an exported program runs for the batch and the mode that it was exported for only")
    if bare:
        raise TriptychError("the softmax at the end of a TorchScript file cannot be taken off")
    script = torch_files.open_script(path)
    if any(getattr(part, "original_name", "").startswith("Dropout") for part in script.modules()):
        raise TriptychError("the dropout in a TorchScript file cannot be switched off")
    return script


class Port:
    """See `triptych.backend.contract.Port`."""

    pure = False

    def __init__(self, candidate: nn.Module, layout: str | None, execution: Execution, outputs: int = 1) -> None:
        self.layout = layout or "NCHW"
        apply_execution(execution, "cpu")
        self.dtype = dtype_of("torch", execution.precision, DTYPES)
        self.places: Sequence[int] = range(outputs)
        self.module = torch_export.unwrapped(candidate)
        self.given: dict[str, torch.Tensor] = {}  # by name, once it has run
        self.forgotten = False
        self.modes = {module: getattr(module, "training", False) for module in self.module.modules()}
        for parameter in self.module.parameters():  # which in a copy of TorchScript come from those of the original
            if not parameter.is_leaf:
                parameter.detach_().requires_grad_()

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """In the order of their first use."""
        used: dict[int, list[int]] = {}  # by identity, in the order of the first use
        self.turned: dict[int, tuple[int, ...]] = {}
        self.calls = 0
        _, outputs = self._pass_on(images, partial(self._note_use, used))
        without = self._without_gradient(outputs)
        named = self._tensors()
        modules = dict(self.module.named_modules())
        known = {name for name in named if isinstance(modules[name.rpartition(".")[0]], OWN_AXES)}
        self.axes = {n: () if n in known else self.turned.get(self.identities[n], ()) for n in named}
        kept = {} if self.forgotten else named
        self.given = {name: t.detach().clone() if t.dtype == self.dtype else t.detach() for name, t in kept.items()}
        self._convert()  # only now: a lazy module has its parameters by the first pass
        places = {identity: place for place, identity in enumerate(used)}
        order = sorted(named, key=lambda name: places.get(self.identities[name], len(used)))
        without = {name for name in without if self.identities.get(name) in used}
        return [
            PortParameter(
                name,
                self._shape(name, named[name]),
                self._role(name),
                name not in without,
                tuple(used.get(self.identities[name], ())),
            )
            for name in order
        ]

    def _note_use(
        self,
        used: dict[int, list[int]],
        function: str,
        tensors: Sequence[torch.Tensor],
        y: torch.Tensor,
        drawn: Drawn | None,
    ) -> None:
        """Who uses a parameter, and the axes in which a view of it, or an (in, out) matrix, is taken."""
        self.calls += 1
        for place, tensor in enumerate(tensors):
            base = tensor if tensor._base is None else tensor._base
            if y is not base and y._base is not base:
                used.setdefault(id(base), []).append(self.calls)
            name, axes = function.strip("_"), axes_of_view(base, tensor)
            if name in PRODUCTS and axes and len(axes) == 2 and place == len(tensors) - 1:
                self.turned[id(base)] = axes[::-1]
            elif name in WEIGHTED and axes and place == 1:
                self.turned[id(base)] = axes

    def _convert(self) -> None:
        """To the type that it is run in; in float32, blocks of 16 bits in a network of wider ones stay as they are."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        sizes = {tensor.element_size() for tensor in tensors if tensor.is_floating_point()}
        mixed = self.dtype == torch.float32 and min(sizes, default=4) < 4 <= max(sizes, default=4)
        for tensor in tensors:
            if tensor.is_floating_point() and not (mixed and tensor.element_size() < 4):
                tensor.data = tensor.data.to(self.dtype)

    def values(self) -> dict[str, Array]:
        """As the network was given."""
        return {name: self._canonical(name, tensor) for name, tensor in self.given.items()}

    def imported(self, request: Request) -> Imported:
        """As `import_network` of the module with the parameters that are set."""
        return import_network(self.module, request)

    def forget(self) -> None:
        """They stay what they are."""
        self.forgotten, self.given = True, {}

    def restore(self) -> None:
        """The values, types and modes that the network had."""
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.data = self.given.get(name, tensor.data)
        for module, mode in self.modes.items():
            module.training = mode

    def _shape(self, name: str, tensor: torch.Tensor) -> tuple[int, ...]:
        return tuple(tensor.shape[axis] for axis in self.axes[name] or range(tensor.ndim))

    def _canonical(self, name: str, tensor: torch.Tensor) -> Array:
        """A copy on the host, in the axes in which the network uses it."""
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        return to_numpy(tensor.permute(self.axes[name]) if self.axes[name] else tensor)

    def _gradients(self, outputs: Sequence[torch.Tensor], cotangents: Sequence[Array]) -> Shelf:
        """Of the parameters, each taken as soon as it is there: they never stand beside each other."""
        taken = Shelf()

        def take(name: str, parameter: torch.Tensor) -> None:
            taken[name] = self._canonical(name, parameter.grad)
            parameter.grad = None

        with self._each_gradient(take):
            self._backward(outputs, cotangents)
        return taken.select(name for name, _ in self.module.named_parameters() if name in taken)

    @contextmanager
    def _each_gradient(self, done: Callable[[str, torch.Tensor], object]) -> Iterator[None]:
        """`done` is called for every parameter as soon as its gradient is whole, in a backward pass in here."""
        named = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        hooks = [p.register_post_accumulate_grad_hook(partial(done, name)) for name, p in named.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _role(self, name: str) -> str:
        owner, _, last = name.rpartition(".")
        module = dict(self.module.named_modules()).get(owner)
        return "slope" if isinstance(module, nn.PReLU) else TORCH.canonical_name(last)

    def _without_gradient(self, outputs: Sequence[torch.Tensor]) -> set[str]:
        """The parameters that the compared outputs do not depend on, and the buffers of modules that have no others."""
        named = dict(self.module.named_parameters())
        reached = [y for y in outputs if y.requires_grad]
        without = {name for name, p in named.items() if p.requires_grad}
        if not reached or not without:
            return set()

        def reach(name: str, parameter: torch.Tensor) -> None:
            without.discard(name)
            parameter.grad = None  # all of them would be a second network

        with self._each_gradient(reach):
            torch.autograd.backward([y.sum() for y in reached])
        kept = {name.rpartition(".")[0] for name in named if name not in without}
        lost = {name.rpartition(".")[0] for name in without} - kept
        return without | {name for name, _ in self.module.named_buffers() if name.rpartition(".")[0] in lost}

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and running statistics by name; buffers that no state dict has are constants of the code."""
        kept = self.module.state_dict(keep_vars=True)
        buffers = {name: b for name, b in self.module.named_buffers() if b.is_floating_point() and name in kept}
        return {**dict(self.module.named_parameters()), **buffers}

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                if name in values:
                    tensor.copy_(self._from_canonical(name, values[name]))

    def _from_canonical(self, name: str, value: Array) -> torch.Tensor:
        axes, value = self.axes[name], np.array(value)
        return torch.from_numpy(value.transpose(np.argsort(axes)) if axes else value)

    def run(self, images: Array, *, train: bool, cotangents: Sequence[Array] = ()) -> PortRun:
        """One pass; with `cotangents`, the gradient of every output that is compared, backward too."""
        captured: list[Captured] = []

        # Maps are channels first whatever the images are: so are PyTorch's functions.
        def watch(function: str, tensors: Sequence[torch.Tensor], y: torch.Tensor, drawn: Drawn | None) -> None:
            if y.ndim < 2 or len(y) != len(images):
                return
            kind = "Dropout" if drawn else KINDS.get(function.strip("_"), "")
            kept_as, value = ("bfloat16", y.float()) if y.dtype == torch.bfloat16 else ("", y)
            entry = Captured(NOT_FLAT.get(kind, kind) if y.ndim != 2 else kind, to_numpy(value), None, drawn, kept_as)
            captured.append(entry)
            if y.requires_grad:
                y.register_hook(lambda gradient: setattr(entry, "gradient", to_numpy(gradient.to(self.dtype))))

        kept = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        x, outputs = self._pass_on(images, watch, train)
        run = PortRun(captured, tuple(map(self._to_canonical, outputs)))
        if cotangents:
            self.module.zero_grad()  # what somebody's training has left there
            run.gradients = self._gradients(outputs, cotangents)
            run.input_gradient = None if x.grad is None else to_numpy(x.grad)
            self.module.zero_grad()
        buffers = dict(self.module.named_buffers())
        run.statistics = {name: to_numpy(buffers[name]) for name in kept if train and name in buffers}
        with torch.no_grad():
            for name, value in kept.items():
                if name in buffers:
                    buffers[name].copy_(value)
        return run

    def call(self, images: Array) -> tuple[Array, ...]:
        """As a user calls it in evaluation."""
        self.module.eval()
        with torch.no_grad():
            x = self._images(images)
            y = self.module(x if self.layout == "NCHW" else x.permute(0, 2, 3, 1))
        return tuple(map(self._to_canonical, self._chosen(list(tensors_in(y)))))

    def raised_in(self, error: BaseException) -> str:
        """The path of the module that the error went through last."""
        paths = {id(module): path for path, module in self.module.named_modules()}
        return next((paths[id(one)] for one in selves(error) if id(one) in paths), "")

    def _images(self, images: Array) -> torch.Tensor:
        """Images in the network's type, canonical."""
        like = next((p for p in self.module.parameters() if not nn.parameter.is_lazy(p)), None)
        x = torch.from_numpy(np.array(images))
        return x.to(self.dtype) if like is None else x.to(like.device, like.dtype)

    def train(self, images: Array, cotangents: Sequence[Array], rates: Sequence[Rates]) -> Mapping[str, Array]:
        """What steps of torch.optim.SGD make of it: one for each parameter, which steps as soon as its gradient is
        there, and lets go of it."""
        steps = {
            name: torch.optim.SGD([parameter], rates[0].learning_rate, rates[0].momentum)
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad
        }

        velocities = Shelf()  # the large ones lie on the disk between two steps

        def step(name: str, parameter: torch.Tensor) -> None:
            state = steps[name].state[parameter]
            if name in velocities:
                state["momentum_buffer"] = torch.from_numpy(np.array(velocities[name]))  # which is read-only
            steps[name].step()
            velocities[name] = state.pop("momentum_buffer").numpy()
            parameter.grad = None

        self.module.zero_grad()
        for _ in rates:
            outputs = self._pass_on(images, lambda *_: None, train=True)[1]
            with self._each_gradient(step):
                self._backward(outputs, cotangents)
        return Shelf((name, self._canonical(name, tensor)) for name, tensor in self._tensors().items())

    def optimize(self, optimizer: Any, gradients: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """What each step of a torch.optim.Optimizer makes of it, and of the schedulers beside it."""
        steppers = list(_steppers_in(_made(optimizer, self.module)))
        own = {id(p) for p in self.module.parameters()}
        for each in (each for each in steppers if isinstance(each, torch.optim.Optimizer)):
            if not any(id(p) in own for group in each.param_groups for p in group["params"]):
                raise TriptychError(
                    "the optimizer has none of the network's parameters: give a function of the network"
                )
        steppers.sort(key=lambda each: not isinstance(each, torch.optim.Optimizer))
        for given in gradients:
            for name, parameter in self.module.named_parameters():
                if parameter.requires_grad and name in given:
                    parameter.grad = self._from_canonical(name, given[name]).to(parameter.dtype).contiguous()
            for each in steppers:
                each.step()
            yield {name: self._canonical(name, p) for name, p in self.module.named_parameters()}

    def loss(self, loss: Any, outputs: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
        """A criterion's value and gradient."""
        y = torch.from_numpy(np.array(outputs)).to(self.dtype).requires_grad_()
        value = loss(y, torch.from_numpy(np.array(labels))).mean()
        (gradient,) = torch.autograd.grad(value, y)
        return to_numpy(value), to_numpy(gradient)

    def _backward(self, outputs: Sequence[torch.Tensor], cotangents: Sequence[Array]) -> None:
        pairs = [(y, self._native(dy)) for y, dy in zip(outputs, cotangents, strict=False) if y.requires_grad]
        if pairs:  # a network that is cut off has no gradients, and that is a finding
            torch.autograd.backward([y for y, _ in pairs], [dy for _, dy in pairs])

    def _pass_on(
        self, images: Array, watch: Callable[..., object], train: bool = False
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Images and outputs of a pass in which `watch` is called for every function."""
        self.module.train(train)
        x = self._images(images).requires_grad_()
        given = x.clone()  # which may be changed in place
        with Watch(watch, train):
            y = self.module(given if self.layout == "NCHW" else given.permute(0, 2, 3, 1))
        self.identities = {name: id(tensor) for name, tensor in self._tensors().items()}
        outputs = list(tensors_in(y))
        self.shapes = [self._canonical_shape(y.shape) for y in outputs]
        return x, self._chosen(outputs)

    def choose(self, places: Sequence[int]) -> None:
        """Of its outputs."""
        self.places = places

    def _chosen(self, outputs: Sequence[Any]) -> list[Any]:
        """Those of all outputs that are compared."""
        return [outputs[place] for place in self.places if place < len(outputs)]

    def _canonical_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        n, *rest = shape or (0,)
        return (n, rest[2], *rest[:2]) if self.layout == "NHWC" and len(rest) == 3 else (n, *rest)

    def _native(self, value: Array) -> torch.Tensor:
        """A map or vector as the network puts it out."""
        tensor = torch.from_numpy(np.array(value)).to(self.dtype)
        return tensor.permute(0, 2, 3, 1) if self.layout == "NHWC" and tensor.ndim == 4 else tensor

    def _to_canonical(self, value: torch.Tensor) -> Array:
        """A copy on the host, channels first."""
        value = value.permute(0, 3, 1, 2) if self.layout == "NHWC" and value.ndim == 4 else value
        return to_numpy(value)


def _made(optimizer: Any, module: nn.Module) -> Any:
    """What somebody's function makes of a network, or of its parameters."""
    if not callable(optimizer):
        return optimizer
    try:
        return optimizer(module)
    except (TypeError, AttributeError):  # "params argument ... should be an iterable", "... has no attribute"
        return optimizer(list(module.parameters()))


def _steppers_in(made: Any) -> Iterator[Any]:
    """The optimisers and schedulers of what was made: one, a pair, lists of them, or Lightning's dictionary. Raises
    TriptychError for anything else."""
    if isinstance(made, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise TriptychError("a schedule that follows the loss (ReduceLROnPlateau) cannot be compared step by step")
    if isinstance(made, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler):
        yield made
    elif isinstance(made, Mapping):
        parts = [made[key] for key in ("optimizer", "lr_scheduler", "scheduler") if key in made]
        for part in parts or [None]:
            yield from _steppers_in(part)
    elif isinstance(made, list | tuple) and made:
        for part in made:
            yield from _steppers_in(part)
    else:
        raise TriptychError(f"a {type(made).__name__} is no torch.optim.Optimizer, nor a pair with its scheduler")
