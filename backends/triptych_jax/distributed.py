"""Several processes that train one network together: jax.distributed joins them, and batches lie across a mesh."""

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from numpy.typing import NDArray

from triptych.backend import group, joining
from triptych.backend.group import Share
from triptych.backend.joining import LOOPBACK, Member, Membership
from triptych.utils.errors import TriptychError
from triptych_jax.shared import AXIS, CUT, EVERYWHERE

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HEARTBEAT_SECONDS = 10  # after which a process that a scheduler has started takes another for dead; JAX's own are 100


class Group(group.Group):
    """The devices of all processes in a row, as a mesh. What is on it is one array, so batch norm is global by itself;
    and it can be cut into equal parts only."""

    even = True

    def __init__(self, device: str, devices: int, told: Membership | None) -> None:
        self.rank, self.size = (told.rank, told.size) if told else (0, 1)
        self.device, self.devices = device.partition(":")[0], devices

    @cached_property
    def local(self) -> list[jax.Device]:
        """This process's devices. Raises TriptychError if there are fewer."""
        found = jax.local_devices(backend=self.device)
        if len(found) < self.devices:
            raise TriptychError(f"--devices {self.devices}, but JAX has {len(found)} of '{self.device}' here")
        return found[: self.devices]

    @cached_property
    def mesh(self) -> Mesh:
        """One axis; the devices of one process stand side by side."""
        if self.size == 1:
            return Mesh(np.array(self.local), (AXIS,))
        by_process = sorted(jax.devices(self.device), key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(by_process), (AXIS,))

    @property
    def replicated(self) -> NamedSharding:
        """The same on every device."""
        return NamedSharding(self.mesh, EVERYWHERE)

    def spread(self, share: Share, parts: Sequence[jax.Array]) -> jax.Array:
        """A micro-batch as one array, of what each device of this process has of it."""
        cut = self.device_shares(share)[0].copies == 1
        spec = CUT if cut else EVERYWHERE
        shape = (share.last - share.first, *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, NamedSharding(self.mesh, spec), list(parts))

    def everywhere(self, value: Any) -> jax.Array:
        """An array that every process has, on every device of the mesh."""
        return jax.make_array_from_process_local_data(self.replicated, np.asarray(value))

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """By an allgather of bytes: without its 64-bit types JAX would round."""
        if self.size == 1:
            return values[None]
        told = multihost_utils.process_allgather(np.frombuffer(np.asarray(values, np.float64).tobytes(), np.uint8))
        return np.frombuffer(np.asarray(told).tobytes(), np.float64).reshape(self.size, *np.shape(values))

    def lost(self, error: RuntimeError) -> bool:
        """By what the collectives and the coordination service call themselves."""
        return any(name in str(error).lower() for name in ("gloo", "coordination", "nccl", "connection"))


def place() -> Membership | None:
    """What the environment says, in JAX's names or, within a step of SLURM, in SLURM's; None for a process alone."""
    said = os.environ
    if COUNT in said:
        if said[COUNT] == "1":
            return None
        return joining.read_place(
            said.get(NUMBER, ""), said[COUNT], said.get(ADDRESS, ""), f"{NUMBER}, {COUNT} and {ADDRESS}"
        )
    place = joining.slurm_place()
    if place is None and NUMBER in said:  # else each would train for itself
        return joining.read_place(said[NUMBER], "", said.get(ADDRESS, ""), f"{NUMBER}, {COUNT} and {ADDRESS}")
    return place


def members(count: int, folder: Path) -> list[Member]:
    """A process for each."""
    address = f"{LOOPBACK}:{joining.free_port()}"
    said = {ADDRESS: address, COUNT: str(count)}
    return [Member(f"process {rank}", environment=said | {NUMBER: str(rank)}) for rank in range(count)]


def join(device: str, devices: int) -> group.Group:
    """Join the processes that `place` names, or be alone."""
    told = place()
    if devices > 1 and device == "cpu":
        with suppress(RuntimeError):  # JAX has met its devices already, as many as there are
            jax.config.update("jax_num_cpu_devices", devices)
    if told is not None:
        _initialize(told)
    return group.ALONE if told is None and devices == 1 else Group(device, devices, told)


def _keep_gloo_on_loopback() -> None:
    """JAX has no option for it. Raises TriptychError where its own function, which is no part of its interface, is not
    found: else gloo would listen where others can reach it, without a word."""
    try:
        from jax._src.lib import _jax

        _jax.make_gloo_tcp_collectives = partial(_jax.make_gloo_tcp_collectives, hostname=LOOPBACK)
    except (ImportError, AttributeError):
        raise TriptychError(
            f"JAX {jax.__version__} cannot be kept to the loopback interface; give one process --devices N, or set "
            f"{ADDRESS} to an address of this machine's"
        ) from None


def _initialize(told: Membership) -> None:
    joining.check_address(told)
    limit = int(2 * joining.seconds()) + 1  # `in_time` is first, and says why
    # By itself the coordinator listens on every interface, and the collectives on that of the machine's name.
    bind = f"{told.host}:{told.port}" if told.local else None
    if told.local:
        _keep_gloo_on_loopback()
    with joining.in_time(told):
        jax.distributed.initialize(
            f"{told.host}:{told.port}",
            told.size,
            told.rank,
            coordinator_bind_address=bind,
            initialization_timeout=limit,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
        with _nothing_printed():  # gloo prints to standard output how many it has met
            multihost_utils.sync_global_devices("join")
    atexit.register(jax.distributed.shutdown)


@contextmanager
def _nothing_printed() -> Iterator[None]:
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
