"""Symbol files of MXNet's, written by hand."""

from __future__ import annotations

from typing import Any


def variable(name: str, **attributes: str) -> dict[str, Any]:
    return {"op": "null", "name": name, "inputs": [], "attrs": attributes}


def node(operator: str, name: str, *inputs: int | list[int], **attributes: str) -> dict[str, Any]:
    entries = [[entry, 0, 0] if isinstance(entry, int) else entry for entry in inputs]
    return {"op": operator, "name": name, "inputs": entries, "attrs": attributes}


def top(*nodes: dict[str, Any], heads: Any = None, version: int | None = 10901) -> dict[str, Any]:
    """All of a file; the last node is the output, unless `heads` says others."""
    graph: dict[str, Any] = {"nodes": list(nodes), "heads": [[len(nodes) - 1, 0, 0]] if heads is None else heads}
    graph["arg_nodes"] = [index for index, each in enumerate(nodes) if each["op"] == "null"]
    return graph | ({"attrs": {"mxnet_version": ["int", version]}} if version else {})
