"""Where a training starts from: files of other frameworks, their trainer's states among them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.cli.arch import request_of
from triptych.cli.options import NetworkOptions
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.importers.trainer_states import TrainerStates
    from triptych.spec.layers import Architecture
    from triptych.training.recipe import Recipe
    from triptych.training.sessions import Session
    from triptych.weights.initializers import Parameters


@dataclass
class Start:
    """What a training starts from. `foreign`: a file of weights that is no safetensors (None: the recipe's own way);
    `states`: what a trainer of the same framework remembers, read by `parameters`; MXNet's with `symbol`; saved after
    `steps`, where the file does not say it."""

    foreign: Path | None = None
    states: Path | None = None
    symbol: Path | None = None
    steps: int | None = None
    remembered: TrainerStates | None = None

    def parameters(self, architecture: Architecture, network: NetworkOptions) -> Parameters | None:
        """The canonical parameters of a foreign file. Raises TriptychError for those of another network."""
        if self.foreign is None:
            return None
        if self.symbol is not None and self.foreign.suffix == ".params":
            return self._of_symbol(self.foreign, self.symbol, network)
        from triptych.porting import sources, trainer_files

        if self.states is None:
            return sources.load_weights(self.foreign, architecture).parameters
        parameters, self.remembered = trainer_files.load(self.states, self.foreign, architecture)
        return parameters

    def _of_symbol(self, params: Path, symbol: Path, network: NetworkOptions) -> Parameters | None:
        from triptych.importers import mxnet_network, mxnet_states

        if self.states is None:
            return mxnet_network.load(symbol, params, request_of(network)).parameters
        imported, self.remembered = mxnet_states.load(self.states, symbol, params, request_of(network))
        return imported.parameters

    def take_up(self, session: Session, *, quiet: bool) -> None:
        """Give the states to the session's optimiser, and say what they were. Raises TriptychError for those of another
        optimiser."""
        if self.remembered is None:
            return
        from triptych.porting import trainer_files
        from triptych.weights import transfer

        self.remembered = self.counted(self.remembered)
        optimizer, summary = session.recipe.optimizer, self.remembered.summary
        frozen = transfer.frozen_paths(session.architecture, session.recipe.freeze)
        wrong = trainer_files.differing(self.remembered, optimizer, session.architecture, frozen)
        if wrong:
            raise TriptychError(f"{self.states} is of {summary}, which the recipe's optimizer is not: give {wrong}")
        session.trainer.load_state(self.remembered.state(session.recipe.rates(0).exact))
        if not quiet:
            print(f"{self.states}: {summary}; here {optimizer}", flush=True)

    def counted(self, remembered: TrainerStates) -> TrainerStates:
        """With the steps that were told. Raises TriptychError where they are missing, or said by the file."""
        unsaid = remembered.counts and remembered.steps is None
        if unsaid and self.steps is None:
            raise TriptychError(f"{self.states} does not say after how many steps it was saved: --states-steps says it")
        if self.steps is not None and not unsaid:
            raise TriptychError(f"leave --states-steps out: {self.states} says its steps, or needs none")
        return replace(remembered, steps=self.steps) if unsaid else remembered


def check(
    recipe: Recipe, resume: Path | None, states: Path | None, arch: str | None, steps: int | None = None
) -> Start:
    """What the recipe starts from. Raises TriptychError for what cannot be, before any data is looked for."""
    from triptych.porting import trainer_files
    from triptych.porting.sources import SYMBOL, WEIGHTS, known_name
    from triptych.training import sessions

    if steps is not None and states is None:
        raise TriptychError("--states-steps is of --states, which is not given")
    if resume is not None:
        if states is not None:
            raise TriptychError("give --states or --resume, not both: a resumed run has its own")
        return Start()
    path = Path(recipe.init_from)
    symbol = Path(arch) if arch is not None and known_name(Path(arch)).endswith(SYMBOL) else None
    if states is not None and states.suffix in trainer_files.READERS:
        if path.suffix not in (states.suffix, *trainer_files.ALIKE.get(states.suffix, ())):
            raise TriptychError(f"--states {states} needs --init-from FILE{states.suffix}, the weights of that moment")
    elif states is not None and (path.suffix != ".params" or symbol is None):
        raise TriptychError(f"--states {states} needs --arch NAME{SYMBOL} and --init-from FILE.params of that moment")
    if states is not None and not states.is_file():
        raise TriptychError(f"there is no file {states}")
    if path.suffix not in WEIGHTS:
        sessions.check_start(recipe)
        return Start()
    if not path.is_file():
        raise TriptychError(f"there is no file {path}")
    return Start(path, states, symbol, steps)
