"""Names in emitted source: of functions and classes by what the spec calls what they make, of their arguments."""

import builtins
import keyword
import re
from collections.abc import Callable, Iterable, Sequence

from triptych.emitting.tree import Column, TreeNode
from triptych.spec.layers import BatchNorm, Branches, Clip, Conv, Residual

# Names that emitted files have for something else: of modules, of arguments, of what a framework's modules have.
MODULES = frozenset({"nn", "nnx", "torch", "jax", "jnp", "lax", "mx", "np", "math", "autograd", "F"})
WORDS = frozenset(
    {"self", "x", "y", "rngs", "load", "load_file", "partial", "concat", "sequence", "Tensor", "TypeAlias"}
)
LETTERS = frozenset({"l", "O", "I"})  # that look like numbers
RESERVED = frozenset(dir(builtins)) | MODULES | WORDS | LETTERS | {"Any", "NDArray"}
ARGUMENTS = frozenset(
    {"in_channels", "channels", "width", "widths", "conv", "count", "kernel", "stride", "padding", "dilation", "groups"}
)
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
ATTRIBUTES = frozenset(
    (
        *("forward", "train", "eval", "type", "float", "half", "double", "bfloat16", "children", "modules", "apply"),
        *("parameters", "buffers", "to", "cpu", "cuda", "ipu", "xpu", "training", "name", "params", "prefix", "cast"),
        *("hybridize", "initialize", "export", "summary", "features", "classifier", "deterministic", "split", "sow"),
        *("perturb", "compile", "requires_grad_", "zero_grad", "to_empty", "add_module", "extra_repr", "state_dict"),
        *("hybrid_forward", "infer_shape", "infer_type", "load", "save_parameters", "load_parameters", "scale"),
        *("collect_params", "register_child", "name_scope", "share_memory", "set_submodule", "get_submodule"),
        *("get_parameter", "get_buffer", "load_state_dict", "named_children", "named_modules", "named_parameters"),
        *("named_buffers", "iter_modules", "iter_children", "set_attributes", "eval_shape", "use_running_average"),
        *("share_parameters", "optimize_for", "reset_ctx", "setattr", "save", "save_params", "load_params"),
        *("register_module", "register_buffer", "register_parameter", "register_op_hook", "add_loss", "load_dict"),
    )
)
GENERAL = frozenset({"body", "residual", "shortcut", "new"})  # names that say nothing of what is in them
LONGEST = 40  # characters that are taken of a stranger's name


def safe(name: str) -> str:
    """An identifier that is no word of Python."""
    return f"{name}_" if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in RESERVED else name


def attribute(name: str) -> str:
    """A name that no module has for something else."""
    return f"{name}_" if name in ATTRIBUTES or keyword.iskeyword(name) else name


def different(names: Iterable[str], change: Callable[[str], str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Every name changed so that no two are one."""
    result: dict[str, str] = {}
    used = set(taken)
    for name in names:
        found = change(name)
        while found in used:
            found += "_"
        used.add(found)
        result[name] = found
    return result


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


def definition_names(
    made: Sequence[Sequence[TreeNode]], classes: Sequence[bool], reserved: frozenset[str]
) -> list[str]:
    """Of functions and classes that make these nodes, each another: the word that their names have in common, with a
    number where several have the word."""
    words = [_unit_name(nodes[0]) if nodes[0].is_unit else _known_name(nodes) or _word_of(nodes) for nodes in made]
    result: list[str] = []
    for word, nodes, is_class in zip(words, made, classes, strict=True):
        alone = words.count(word) == 1 or nodes[0].is_unit
        name = word if alone else _common(nodes)
        written = camel(name) if is_class else snake(name)
        found, number = written, 2
        while found in result or found in reserved | ARGUMENTS:
            found, number = f"{written}{number}" if is_class else f"{written}_{number}", number + 1
        result.append(found)
    return result


def argument_name(column: Column, taken: set[str]) -> str:
    """Of a number that differs: what it is; of several alike, whose it is."""
    whose = [name for name in column.names if name not in GENERAL]
    where = "_".join(dict.fromkeys(whose)).lower()
    kinds = {"inputs": f"{where}_inputs", "channels": where, "units": where, "step": "growth", "kernel_pair": "kernel"}
    name = safe(kinds.get(column.number, column.number))
    if name in taken:
        name = f"{where}_{column.number}"
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def _unit_name(node: TreeNode) -> str:
    words = []
    for child in node.children:
        kind = type(child.layer).__name__
        if isinstance(child.layer, Clip) and (child.layer.low, child.layer.high) == (0.0, 6.0):
            kind = "ReLU6"
        words.append({"BatchNorm": "norm", "ConvTranspose": "conv_transpose"}.get(kind, kind.lower()))
    return "_".join(words)


def _known_name(nodes: Sequence[TreeNode]) -> str:
    """The field's names of residual units and dense layers."""
    node = nodes[0]
    joins = isinstance(node.layer, Branches) and node.layer.merge == "concatenate"
    if joins and len(nodes) > 1 and len(node.children) == 2 and not node.children[0].children:
        return "dense_layer"
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


def _word_of(nodes: Sequence[TreeNode]) -> str:
    """`inception` of `inception3a` and `inception4b`."""
    return re.sub(r"_?\d+[a-z]?_?\d*$", "", _common(nodes)) or _common(nodes)


def _common(nodes: Sequence[TreeNode]) -> str:
    """What the names of all have in front."""
    found = list(dict.fromkeys(node.name for node in nodes))
    names = [name for name in found if name not in GENERAL] or found
    return _prefix(names).strip("_") or type(nodes[0].layer).__name__


def _prefix(names: Sequence[str]) -> str:
    """The letters that all names begin with."""
    least, most = min(names), max(names)
    length = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    return least[:length]
