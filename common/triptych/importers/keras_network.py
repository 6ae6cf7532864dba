"""A Keras model's file (`.keras`, `.h5`, `.hdf5`) as a network of the spec, without Keras.

Maps are height-width-channels in Keras and channels-height-width here, so the input's axes are exchanged; what was
flattened in Keras's order is sorted in the next dense layer's columns.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triptych.importers.assemble import assemble
from triptych.importers.keras_call import LayerCall
from triptych.importers.keras_graph import NETWORK_INPUT, KerasCall, KerasGraph, flatten
from triptych.importers.keras_layers import LAYERS
from triptych.importers.network_builder import NetworkBuilder, Tensor
from triptych.importers.steps import Imported, ImportRefusedError, Request, needed
from triptych.spec.kinds.kind import SpecError
from triptych.spec.layers import INPUT
from triptych.weights.formats.keras_file import KerasFile, read

SUFFIXES = (".keras", ".h5", ".hdf5")


def load(path: Path, request: Request) -> Imported:
    """The network in a file. Raises TriptychError in one line for a file that is damaged, ImportRefusedError, which
    names the layer and what is supported, for a network that cannot be taken over. Needs h5py."""
    file = read(path)
    if file.model is None:
        raise ImportRefusedError(
            f"{path} holds weights and no network; name the network, and this file as --weights, or "
            "save the whole model: model.save('net.keras')"
        )
    if file.version[0] < 2:
        raise ImportRefusedError(f"{path} is of Keras {file.version[0]}; load and save it with Keras 2 or 3")
    graph = flatten(file.model, str(path))
    shape, start = _input(graph, request, str(path))
    network = NetworkBuilder()
    tensors = _tensors(graph, file, request, network, start)
    ends = [network.output(tensor) for tensor in tensors]
    network.remarks.extend(_remarks(graph, file))
    return assemble(
        network.steps,
        ends,
        request,
        name=path.stem,
        source=f"Keras {file.version[0]}.{file.version[1]}: {path.name}",
        input_shape=shape,
        remarks=network.remarks,
    )


def _input(graph: KerasGraph, request: Request, source: str) -> tuple[tuple[int, int, int], Tensor]:
    """The input `(channels, height, width)`, and what the first layers get of it: a flat one is a map of one pixel, one
    of rows and columns a map of one channel."""
    sizes = (graph.input_shape or (None,))[1:]
    if request.input is not None:
        channels, *pixels = request.input
        sizes = {1: (channels,), 2: tuple(pixels)}.get(len(sizes), (*pixels, channels))
    if len(sizes) not in (1, 2, 3) or not all(type(size) is int and 0 < size < 1 << 31 for size in sizes):
        raise ImportRefusedError(
            f"{source} takes an input of shape {sizes}, expected (height, width, channels), (height, width) or "
            "(features,); where a size is open, say it: --input CHANNELSxHEIGHTxWIDTH"
        )
    numbers = [size for size in sizes if isinstance(size, int)]
    if len(numbers) == 2:
        shape = (1, numbers[0], numbers[1])
        return shape, Tensor(INPUT, shape, Tensor(INPUT, shape).places().reshape(numbers))
    shape = (numbers[2], numbers[0], numbers[1]) if len(numbers) == 3 else (numbers[0], 1, 1)
    return shape, Tensor(INPUT, shape)


def _tensors(
    graph: KerasGraph, file: KerasFile, request: Request, network: NetworkBuilder, start: Tensor
) -> list[Tensor]:
    """The outputs; calls that they do not need are not looked at."""
    outputs = _wanted(graph, request, file.source)
    takes = {str(index): [str(value) for value in call.values] for index, call in enumerate(graph.calls)}
    wanted = needed(takes, map(str, outputs))
    flat = len(graph.input_shape or ()) == 2
    tensors = {NETWORK_INPUT: network.flat("flatten", start) if flat else start}
    for index, call in enumerate(graph.calls):
        if str(index) in wanted:
            tensors[index] = _converted(call, file, network, tensors)
    return [tensors[output] for output in outputs]


def _wanted(graph: KerasGraph, request: Request, source: str) -> tuple[int, ...]:
    if not request.outputs:
        return graph.outputs
    by_name = {call.name: index for index, call in enumerate(graph.calls)}
    for name in request.outputs:
        if name not in by_name:
            raise ImportRefusedError(f"{source} has no layer {name!r}; it has {', '.join(list(by_name)[:9])} ...")
    return tuple(by_name[name] for name in request.outputs)


def _converted(call: KerasCall, file: KerasFile, network: NetworkBuilder, tensors: Mapping[int, Tensor]) -> Tensor:
    place = f"{file.source}: layer {call.name!r} ({call.class_name})"
    if call.class_name not in LAYERS:
        raise ImportRefusedError(f"{place} is not supported; supported: {', '.join(LAYERS)}")
    inputs = [tensors[value] for value in call.values]
    arrays = _arrays(call, file)
    layer = LayerCall(
        call.name,
        call.config,
        inputs,
        arrays,
        file.version,
        network,
        call.numbers,
        call.number_first,
        call.training,
    )
    try:
        y = LAYERS[call.class_name](layer)
        layer.check_all_read()
        return y
    except ImportRefusedError as error:
        raise ImportRefusedError(f"{place} {error}") from None
    except SpecError as error:
        raise ImportRefusedError(f"{place}: {error.problem}") from None


def _arrays(call: KerasCall, file: KerasFile) -> list[NDArray[Any]]:
    if file.by_class:
        return file.arrays.get(call.file_path, [])
    if len(call.path) > 1:  # a model in the model: all its layers' arrays stand in its own group
        return file.arrays.get((call.path[0], call.path[-1]), [])
    return [array for path, arrays in file.arrays.items() if path[0] == call.path[0] for array in arrays]


def _remarks(graph: KerasGraph, file: KerasFile) -> list[str]:
    """What training differs in: layers that are called twice, and the weight decay that Keras keeps in its layers."""
    calls = Counter(call.name for call in graph.calls if _arrays(call, file))
    remarks = [
        f"layer {name!r} is called {n} times: {n} layers of the same weights" for name, n in calls.items() if n > 1
    ]
    regularized = sum(any(k.endswith("_regularizer") and v for k, v in call.config.items()) for call in graph.calls)
    if regularized:
        remarks.append(f"{regularized} layers have a regularizer, which is the recipe's matter (weight decay) here")
    return remarks
