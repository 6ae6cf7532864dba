"""Names in emitted source: of functions and classes by what the spec calls what they make, of their arguments."""

import builtins
import keyword
import os
import re
from collections.abc import Sequence

from triptych.emitting.tree import Column, Node
from triptych.spec.layers import BatchNorm, Clip, Conv, Residual

RESERVED = frozenset(dir(builtins)) | {"nn", "nnx", "torch", "jax", "jnp", "mx", "self", "x", "rngs", "F", "load"}
ACRONYMS = {
    "vgg": "VGG",
    "resnet": "ResNet",
    "googlenet": "GoogLeNet",
    "densenet": "DenseNet",
    "alexnet": "AlexNet",
    "lenet": "LeNet",
    "nin": "NiN",
    "squeezenet": "SqueezeNet",
    "mobilenet": "MobileNet",
    "mobilenetv2": "MobileNetV2",
    "bn": "BN",
    "lrn": "LRN",
}
# Names that the frameworks' modules have for something else.
ATTRIBUTES = frozenset(
    "forward train eval type float half double bfloat16 children modules parameters buffers apply to cpu cuda training "
    "name params prefix cast hybridize initialize export summary features classifier deterministic split sow perturb "
    "hybrid_forward infer_shape load save_parameters load_parameters collect_params register_child state_dict".split()
)
GENERAL = frozenset({"body", "residual", "shortcut", "new"})  # names that say nothing of what is in them
LONGEST = 40  # characters that are taken of a stranger's name


def safe(name: str) -> str:
    """An identifier that is no word of Python."""
    return f"{name}_" if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in RESERVED else name


def attribute(name: str) -> str:
    """A name that no module has for something else."""
    return f"{name}_" if name in ATTRIBUTES or keyword.iskeyword(name) or name.startswith("_") else name


def camel(name: str) -> str:
    """`resnet50_v1b` to `ResNet50V1b`."""
    words = re.split(r"[^A-Za-z0-9]+", re.sub(r"(?<=\d)\.(?=\d)", "p", name)[:LONGEST])
    made = "".join(_word(word) for word in words if word)
    return safe(made if made[:1].isalpha() else f"Network{made}")


def snake(name: str) -> str:
    """`Mixed5` to `mixed5`."""
    return safe(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


def _word(word: str) -> str:
    letters = re.match(r"[A-Za-z]+", word)
    known = ACRONYMS.get(word.lower()) or (ACRONYMS.get(letters[0].lower()) if letters else None)
    if known and word.lower() not in ACRONYMS and letters:
        return known + word[letters.end() :]
    return known or word[0].upper() + word[1:]


def definition_names(made: Sequence[Sequence[Node]], classes: Sequence[bool], reserved: frozenset[str]) -> list[str]:
    """Of functions and classes that make these nodes, each another: the word that their names have in common, with a
    number where several have the word."""
    words = [_unit_name(nodes[0]) if nodes[0].is_unit else _known_name(nodes) or _word_of(nodes) for nodes in made]
    result: list[str] = []
    for word, nodes, is_class in zip(words, made, classes, strict=True):
        alone = words.count(word) == 1 or nodes[0].is_unit
        name = word if alone else _common(nodes)
        written = camel(name) if is_class else snake(name)
        found, number = written, 2
        while found in result or found in reserved:
            found, number = f"{written}{number}" if is_class else f"{written}_{number}", number + 1
        result.append(found)
    return result


def argument_name(column: Column, taken: set[str]) -> str:
    """Of a number that differs: what it is; of several alike, whose it is."""
    whose = [name for name in column.names if name not in GENERAL]
    where = "_".join(dict.fromkeys(whose))
    kinds = {"inputs": f"{where}_inputs", "channels": where, "units": where, "step": "growth", "kernel_pair": "kernel"}
    name = safe(kinds.get(column.number, column.number))
    if name in taken:
        name = f"{where}_{column.number}"
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def _unit_name(node: Node) -> str:
    words = []
    for child in node.children:
        kind = type(child.layer).__name__
        if isinstance(child.layer, Clip) and (child.layer.low, child.layer.high) == (0.0, 6.0):
            kind = "ReLU6"
        words.append({"BatchNorm": "norm", "ConvTranspose": "conv_transpose"}.get(kind, kind.lower()))
    return "_".join(words)


def _known_name(nodes: Sequence[Node]) -> str:
    """The field's names of residual units and dense layers."""
    node = nodes[0]
    flow = next((child for child in (node, *node.children) if isinstance(child.layer, Residual)), None)
    if flow is not None and len(nodes) > 1:
        body = [leaf.layer for leaf in flow.children[-1].below() if isinstance(leaf.layer, Conv)]
        normed = any(isinstance(leaf.layer, BatchNorm) for leaf in flow.children[-1].below())
        kernels = [layer.kernel for layer in body]
        if normed and kernels == [(1, 1), (3, 3), (1, 1)]:
            return "inverted_residual" if body[1].groups > 1 else "bottleneck"
        if normed and kernels == [(3, 3), (3, 3)]:
            return "basic_block"
    return ""


def _word_of(nodes: Sequence[Node]) -> str:
    """`inception` of `inception3a` and `inception4b`."""
    return re.sub(r"_?\d+[a-z]?_?\d*$", "", _common(nodes)) or _common(nodes)


def _common(nodes: Sequence[Node]) -> str:
    """What the names of all have in front."""
    found = list(dict.fromkeys(node.name for node in nodes))
    names = [name for name in found if name not in GENERAL] or found
    return os.path.commonprefix(names).strip("_") or type(nodes[0].layer).__name__
