"""TensorFlow's own graph optimizer, called as a library: Grappler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

# Kernels are fused only where it is known that the processor runs them.
_CPU = "/job:localhost/replica:0/task:0/device:CPU:0"


def grappled(
    definition: Any,
    keep: Iterable[str],
    optimizers: Sequence[str],
    *,
    iterations: int = 2,
    channels_last: bool = False,
) -> Any:
    """Return a graph as Grappler rewrites it; what it cannot improve is returned as it is.

    Args:
        definition: The `GraphDef`; left as it is.
        keep: Names of nodes that stay, under their names.
        optimizers: Grappler's names of them, in order.
        iterations: How often all of them are run at most.
        channels_last: Whether ``layout`` is to write channels-first layers for channels-last data.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    placed = type(definition)()
    placed.CopyFrom(definition)
    for node in placed.node:
        node.device = _CPU
    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(placed, name="")
    meta = tf.compat.v1.train.export_meta_graph(graph_def=placed, graph=whole)
    meta.collection_def["train_op"].node_list.value.extend(dict.fromkeys(keep))
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.optimizers.extend(optimizers)
    rewriting.min_graph_nodes = -1  # small graphs are worth it too
    rewriting.meta_optimizer_iterations = iterations
    if channels_last:
        rewriting.cpu_layout_conversion = rewriter_config_pb2.RewriterConfig.NCHW_TO_NHWC
    found = tf_optimizer.OptimizeGraph(config, meta)
    for node in found.node:
        node.device = ""
    return found
