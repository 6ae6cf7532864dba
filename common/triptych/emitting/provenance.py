"""Which layers of the spec a written expression stands for: what is written once stands for every instance's."""

from collections.abc import Iterator
from itertools import zip_longest

from triptych.emitting.plan import Plan
from triptych.emitting.tree import TreeNode, flow_of
from triptych.spec.layers import Residual


def layers_made(plan: Plan) -> dict[TreeNode, frozenset[str]]:
    """By node that is written, the paths of all layers that its expression makes."""
    found: dict[TreeNode, set[str]] = {}
    written = [(plan.root, [plan.root]), *((made.node, made.instances) for made in plan.definitions.values())]
    for node, instances in written:
        for instance in instances:
            for one, other in _inside(plan, node, instance):
                found.setdefault(one, set()).update(
                    path for leaf in other.below() if leaf.is_leaf for path in (leaf.path, *leaf.taken)
                )
    return {node: frozenset(paths) for node, paths in found.items()}


def _inside(plan: Plan, node: TreeNode, instance: TreeNode) -> Iterator[tuple[TreeNode, TreeNode]]:
    """What is written inside of a node, each with what it is in an instance; not what a call makes elsewhere."""
    for child, other in _children(plan, node, instance):
        yield child, other
        if plan.definition(child) is None or child is flow_of(node):
            yield from _inside(plan, child, other)


def _children(plan: Plan, node: TreeNode, instance: TreeNode) -> Iterator[tuple[TreeNode, TreeNode]]:
    if isinstance(node.layer, Residual):
        yield node.children[-1], instance.children[-1]
        if node.shortcut is not None and instance.shortcut is not None:
            yield node.shortcut, instance.shortcut
    elif node.is_row:
        for mine, its in zip(plan.runs(node), plan.runs(instance), strict=True):
            first = mine.nodes[:1] if mine.mode == "step" else [mine.nodes[0], mine.nodes[-1]]
            yield from zip_longest(first[: len(its.nodes)], its.nodes, fillvalue=first[-1])
    else:
        yield from zip(node.children, instance.children, strict=True)
