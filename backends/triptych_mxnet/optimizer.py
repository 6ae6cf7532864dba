"""SGD as the spec has it, and its state to and from canonical."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet import gluon

from triptych.initializers import Parameters
from triptych.optimizers import Optimizer, Rates, decay_of, float32
from triptych_mxnet.model import Network
from triptych_mxnet.parameters import to_numpy


class Sgd:
    """gluon.Trainer with mx.optimizer.SGD, which keeps `-learning_rate * v` where the spec keeps the velocity v."""

    def __init__(self, network: Network, optimizer: Optimizer) -> None:
        decay = decay_of(optimizer, network.architecture)
        self.named = {path: parameter for path, parameter in network.named_parameters().items() if path in decay}
        for path, parameter in self.named.items():
            parameter.wd_mult = float(decay[path] != 0)
        native = mx.optimizer.SGD(learning_rate=1.0, wd=float32(optimizer.weight_decay))
        self.native = gluon.Trainer(list(self.named.values()), native, kvstore=None)
        self.load_state({})

    def step(self, rates: Rates) -> None:
        """Move every parameter by its gradient."""
        # A learning rate of 0 would wipe out the velocity: it is kept under the last one, and the weights put back.
        rate = rates.learning_rate or self.held
        before = [] if rates.learning_rate else [parameter.data().copy() for parameter in self.named.values()]
        self._take_up_loaded(rate)
        # MXNet leaves the velocity as it is when the momentum is 0; a velocity of 0 makes every momentum the same.
        scale = rate / self.held if rates.momentum and self.moving else 0.0
        if scale != 1.0:
            for velocity in self.velocities.values():
                velocity *= scale
        self.native.set_learning_rate(rate)
        self.native.optimizer.momentum = rates.momentum or 0.5
        self.native.step(1)  # the loss is a mean already
        for parameter, value in zip(self.named.values(), before, strict=False):
            parameter.set_data(value)
        self.held, self.moving = rate, rates.momentum != 0

    def state(self) -> Parameters:
        """The velocity by path, in float64, because the learning rate divided out in float32 would not come back to
        the same bits; empty while there is none."""
        if self.loaded or not self.moving:
            return dict(self.loaded)
        return {path: to_numpy(value).astype(np.float64) / -self.held for path, value in self.velocities.items()}

    def load_state(self, state: Parameters) -> None:
        """Continue from a velocity; it is put under the learning rate of the next step."""
        self.loaded, self.moving, self.held = dict(state), bool(state), 1.0
        self.velocities = {path: mx.nd.zeros_like(parameter.data()) for path, parameter in self.named.items()}
        (updater,) = self.native._updaters
        updater.states = dict(enumerate(self.velocities.values()))
        updater.states_synced = dict.fromkeys(updater.states, True)

    def _take_up_loaded(self, rate: float) -> None:
        for path, value in self.loaded.items():
            velocity = self.velocities[path]
            velocity[:] = mx.nd.array(np.asarray(value, np.float64) * -rate, velocity.context, velocity.dtype)
        if self.loaded:
            self.loaded, self.held = {}, rate
