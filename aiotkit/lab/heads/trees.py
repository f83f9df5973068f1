"""Ensembles of trees as one ONNX node whose branches go exactly where the library's go.

The library compares a column with a float64 threshold, the node with a float32 one. For a float32 value v,
v ≤ t holds exactly when v ≤ the largest float32 that is ≤ t: thresholds are snapped down to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.lab.onnx_graph import ML_DOMAIN, Graph

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tree:
    """Nodes by position: ``column``, ``threshold``, ``left`` (value ≤ threshold), ``right``; −1 = a leaf.

    ``value`` ``[nodes, targets]`` is what a leaf adds; ``unknown_left`` where NaN goes.
    """

    column: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats
    unknown_left: NDArray[np.bool_]


def snapped(threshold: Floats) -> NDArray[np.float32]:
    """The largest float32 that is not above each threshold."""
    near = threshold.astype(np.float32)
    above = near.astype(np.float64) > threshold
    near[above] = np.nextafter(near[above], np.float32(-np.inf))
    return near


def add_trees(graph: Graph, x: str, trees: Sequence[Tree], base: Floats) -> str:
    """Sum of the trees' leaves plus ``base`` ``[targets]``: float32 ``[batch, columns]`` to the same."""
    sizes = [len(tree.column) for tree in trees]
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(n) for n in sizes])
    leaf = np.concatenate([tree.left < 0 for tree in trees])
    targets = trees[0].value.shape[1]
    values = np.concatenate([tree.value for tree in trees])[leaf]
    row, target = np.nonzero(values)
    leaf_trees, leaf_nodes = tree_ids[leaf], node_ids[leaf]
    return graph.op(
        "TreeEnsembleRegressor",
        x,
        domain=ML_DOMAIN,
        n_targets=targets,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[float(v) for v in base],
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=node_ids.tolist(),
        nodes_featureids=np.where(leaf, 0, _joined([t.column for t in trees])).tolist(),
        nodes_values=np.where(
            leaf, np.float32(0), snapped(np.concatenate([t.threshold for t in trees]))
        ).tolist(),
        nodes_modes=["LEAF" if last else "BRANCH_LEQ" for last in leaf],
        nodes_truenodeids=np.where(leaf, 0, _joined([t.left for t in trees])).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, _joined([t.right for t in trees])).tolist(),
        nodes_missing_value_tracks_true=(~leaf & np.concatenate([t.unknown_left for t in trees]))
        .astype(int)
        .tolist(),
        target_treeids=leaf_trees[row].tolist(),
        target_nodeids=leaf_nodes[row].tolist(),
        target_ids=target.tolist(),
        target_weights=values[row, target].astype(np.float32).tolist(),
    )


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate(parts).astype(np.int64)
