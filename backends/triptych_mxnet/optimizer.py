"""The optimisers as the spec has them, and their state to and from canonical."""

import math
from typing import Any

import mxnet as mx
from mxnet import gluon
from numpy.typing import NDArray

from triptych.backend import optimizer_state
from triptych.optim.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, Rates, RMSprop, decay_of, float32, rates_of
from triptych.weights.initializers import Parameters
from triptych_mxnet.model import Network
from triptych_mxnet.weights import from_numpy, to_numpy

States = tuple[mx.nd.NDArray, ...]


class Updater:
    """gluon.Trainer with the optimisers below, which follow the spec where MXNet's own do not."""

    def __init__(self, network: Network, optimizer: Optimizer, frozen: frozenset[str]) -> None:
        decay = decay_of(optimizer, network.architecture, frozen)
        factors = rates_of(optimizer, network.architecture, frozen)
        self.named = {path: parameter for path, parameter in network.named_parameters().items() if path in decay}
        for path, parameter in self.named.items():
            parameter.lr_mult = factors[path]
            parameter.wd_mult = decay[path] and decay[path] / float32(optimizer.weight_decay)
        self.optimizer = optimizer
        self.places = {slot: place for place, slot in enumerate(optimizer.slots)}
        self.native = gluon.Trainer(list(self.named.values()), NATIVE[type(optimizer)](optimizer), kvstore=None)
        self.states: list[dict[str, States]] = []  # of every context, by path; empty before the first step
        self.used = False

    def step(self, rates: Rates) -> None:
        """Move every parameter by its gradient."""
        if not self.states:
            self.load_state({})
        self.native.set_learning_rate(rates.exact)
        self.native.optimizer.momentum = rates.momentum
        self.native.step(1)  # the loss is a mean already
        used = self.optimizer.remembers(rates)
        if self.used and not used:  # the next velocity starts from nothing
            for of_context in self.states:
                for (velocity,) in of_context.values():
                    velocity[:] = 0
        self.used = used

    def state(self) -> Parameters:
        """The velocities, or means and variances, by slot and path; empty before the first step."""

        def read(slot: str, path: str) -> NDArray[Any] | None:
            return to_numpy(self.states[0][path][self.places[slot]]) if self.used else None

        native = self.native.optimizer
        count = max(native._index_update_count.values(), default=native.begin_num_update)  # steps made
        return optimizer_state.collect(self.optimizer, self.named, read, count)

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state; what it does not name starts at zero."""
        self.used = bool(state)
        native = self.native.optimizer
        native.begin_num_update, native._index_update_count = optimizer_state.count_of(state), {}
        native._all_index_update_counts = {0: native._index_update_count}
        given = list(optimizer_state.take_apart(self.optimizer, self.named, state))
        self.states = []
        for number, updater in enumerate(self.native._updaters):
            states = {path: native.create_state(0, p.list_data()[number]) for path, p in self.named.items()}
            for slot, path, value in given:
                if value is not None:
                    kept = states[path][self.places[slot]]
                    kept[:] = from_numpy(value, kept)
            updater.states = dict(enumerate(states.values()))
            updater.states_synced = dict.fromkeys(updater.states, True)
            self.states.append(states)


class _Sgd(mx.optimizer.Optimizer):
    """The learning rate outside the velocity: MXNet's own departs from PyTorch's when the rate changes."""

    def __init__(self, optimizer: SGD) -> None:
        super().__init__(learning_rate=0.0, wd=float32(optimizer.weight_decay))
        self.nesterov = optimizer.nesterov
        self.momentum = optimizer.momentum

    def create_state(self, index: int, weight: mx.nd.NDArray) -> States:
        return (mx.nd.zeros_like(weight),)

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: States) -> None:
        (velocity,) = state
        rate, decay = float32(self._get_lr(index)), self._get_wd(index)
        move = grad + decay * weight if decay else grad
        if self.momentum:
            velocity *= self.momentum
            velocity += move
            move = move + self.momentum * velocity if self.nesterov else velocity
        # Not by sgd_update: operators read their learning rate from text, and not always as the nearest float32.
        weight -= rate * move


class _Adam(mx.optimizer.Optimizer):
    """Adam; MXNet's own operators add eps before the bias correction and read their rates as float32."""

    decoupled = False

    def __init__(self, optimizer: Adam) -> None:
        super().__init__(learning_rate=0.0, wd=float32(optimizer.weight_decay))
        self.record = optimizer

    def create_state(self, index: int, weight: mx.nd.NDArray) -> States:
        return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: States) -> None:
        self._update_count(index)
        mean, variance = state
        rates, decay, count = Rates(self._get_lr(index)), self._get_wd(index), self._index_update_count[index]
        beta1, beta2, eps = self.record.moments
        if decay and self.decoupled:
            weight *= 1 - rates.learning_rate * decay
        elif decay:
            grad = grad + decay * weight
        mean *= beta1
        mean += (1 - beta1) * grad
        variance *= beta2
        variance += (1 - beta2) * mx.nd.square(grad)
        size = self.record.size(rates, count)
        if self.record.eps_added == "before":
            weight -= size * mean / (mx.nd.sqrt(variance) + eps)
        else:
            root = mx.nd.sqrt(variance) / math.sqrt(1 - beta2**count) + eps
            weight -= size / (1 - beta1**count) * mean / root


class _AdamW(_Adam):
    """The decay beside the gradient, not in it."""

    decoupled = True


class _RmsProp(mx.optimizer.Optimizer):
    """RMSprop; MXNet's own puts eps inside the root, and the learning rate inside the velocity."""

    def __init__(self, optimizer: RMSprop) -> None:
        super().__init__(learning_rate=0.0, wd=float32(optimizer.weight_decay))
        self.alpha, self.eps = optimizer.alpha, optimizer.eps
        self.momentum = optimizer.momentum

    def create_state(self, index: int, weight: mx.nd.NDArray) -> States:
        return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: States) -> None:
        square, velocity = state
        rate, decay = float32(self._get_lr(index)), self._get_wd(index)
        grad = grad + decay * weight if decay else grad
        square *= self.alpha
        square += (1 - self.alpha) * mx.nd.square(grad)
        move = grad / (mx.nd.sqrt(square) + self.eps)
        velocity *= self.momentum
        if self.momentum:
            velocity += move
            move = velocity
        weight -= rate * move


class _Adagrad(mx.optimizer.Optimizer):
    """Adagrad; MXNet's own puts eps inside the root."""

    def __init__(self, optimizer: Adagrad) -> None:
        super().__init__(learning_rate=0.0, wd=float32(optimizer.weight_decay))
        self.eps = optimizer.eps

    def create_state(self, index: int, weight: mx.nd.NDArray) -> States:
        return (mx.nd.zeros_like(weight),)

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: States) -> None:
        (total,) = state
        rate, decay = float32(self._get_lr(index)), self._get_wd(index)
        grad = grad + decay * weight if decay else grad
        total += mx.nd.square(grad)
        weight -= rate * grad / (mx.nd.sqrt(total) + self.eps)


NATIVE = {SGD: _Sgd, Adam: _Adam, AdamW: _AdamW, RMSprop: _RmsProp, Adagrad: _Adagrad}
