"""Several processes that train one network together: they add their gradients on MXNet's parameter server."""

import os
from pathlib import Path

import mxnet as mx
import numpy as np
from numpy.typing import NDArray

from triptych.backend import group, joining
from triptych.backend.joining import LOOPBACK, Member, Membership
from triptych_mxnet.device import ADDRESS, ROLE, get_device

NAMES = "DMLC_ROLE, DMLC_NUM_WORKER, DMLC_PS_ROOT_URI and DMLC_PS_ROOT_PORT"


class Group(group.Group):
    """The workers of a parameter server, each with one or several contexts."""

    def __init__(self, device: str, devices: int, store: mx.kv.KVStore) -> None:
        self.devices = devices
        self.contexts = [get_device(device)] if devices == 1 else [_context(device, i) for i in range(devices)]
        self.store = store
        self.distributed = "dist" in store.type
        if self.distributed:
            self.rank, self.size = store.rank, store.num_workers
        self.known: set[str] = set()

    def total(self, name: str, values: list[mx.nd.NDArray]) -> None:
        """Replaces `values`, one of each of this process's contexts, by the sum of all processes'. All of one name have
        one shape. What goes between processes is float32.

        gluon.Trainer does the same by itself, but the second one in a process would give other arrays its names."""
        key = f"{name} {values[0].shape} {np.dtype(values[0].dtype).name}"
        if key not in self.known:
            self.store.init(key, mx.nd.zeros_like(values[0]))
            self.known.add(key)
        self.store.push(key, values)
        self.store.pull(key, values)

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """As bytes, each a float32 in a row of its own of a sum: the wire has no float64."""
        if self.size == 1:
            return values[None]
        mine = np.frombuffer(np.asarray(values, np.float64).tobytes(), np.uint8)
        rows = np.zeros((self.size, len(mine)), np.float32)
        rows[self.rank] = mine
        total = mx.nd.array(rows)
        self.total("gather", [total])
        told = total.asnumpy().astype(np.uint8)
        return np.frombuffer(told.tobytes(), np.float64).reshape(self.size, *np.shape(values))


def place() -> Membership | None:
    """What the environment says to a worker, whose number the scheduler gives; None for a process alone."""
    said = os.environ
    if said.get(ROLE) != "worker" or said.get("DMLC_NUM_WORKER", "1") == "1":
        return None
    return joining.read_place("0", said["DMLC_NUM_WORKER"], joining.said_address(*ADDRESS), NAMES)


def members(count: int, folder: Path) -> list[Member]:
    """A scheduler, a server and the workers; what they are decides what the import of MXNet does."""
    host, port = (LOOPBACK, str(joining.free_port()))
    said = dict(zip(ADDRESS, (host, port), strict=True))
    said |= {"DMLC_NUM_SERVER": "1", "DMLC_NUM_WORKER": str(count)}
    said |= {"DMLC_INTERFACE": joining.loopback_interface(), "DMLC_NODE_HOST": host}
    helpers = [Member(role, environment=said | {ROLE: role}, helper=True) for role in ("scheduler", "server")]
    return helpers + [Member("a worker", environment=said | {ROLE: "worker"}) for _ in range(count)]


def join(device: str, devices: int) -> group.Group:
    """Join the processes that `place` names, or be alone."""
    told = place()
    if told is None:
        return group.ALONE if devices == 1 else Group(device, devices, mx.kv.create("local"))
    joining.check_address(told, listens=False)  # the scheduler does
    with joining.in_time(told):
        joined = Group(device, devices, mx.kv.create("dist_sync"))
        joined.gather(np.zeros(1))
    return joined


def _context(device: str, number: int) -> mx.Context:
    return mx.cpu(number) if device == "cpu" else get_device(f"{device.partition(':')[0]}:{number}")
