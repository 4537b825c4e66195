"""Cleaned graphs in TensorFlow: strop's, `optimize_for_inference`'s and Grappler's, beside the original.

``python -m benchmarks.graphs`` prints the table. All of one graph run in one process, in turn, round by round, with
Grappler at load switched on, as TensorFlow has it, and off, where a graph stands for itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.places import CaseUnavailableError, data_file
from benchmarks.untrained import EFFICIENTNET_B0, MOBILENET_V2, RESNET50, untrained_model
from strop.numerics.statistics import ratio_interval

ROUNDS = 40
_ROUND_SECONDS = 0.1
_RIVALS = ("original", "optimize_for_inference", "grappler")


@dataclass(frozen=True)
class Graph:
    """A graph to clean.

    Attributes:
        name: What it is called in the table.
        file: Returns where it lies.
        options: What strop's reader is told of it.
    """

    name: str
    file: Callable[[], Path]
    options: Mapping[str, Any] = field(default_factory=dict)


def _shared(name: str) -> Callable[[], Path]:
    return lambda: data_file(f"models/frozen_graphs/{name}")


GRAPHS = (
    Graph("MobileNet v1 0.25, frozen", _shared("mobilenet_v1_0.25_128/frozen_graph.pb")),
    Graph(
        "MobileNet v1 0.25, retrained",
        _shared("mobilenet_v1_0.25_128/retrained_graph.pb"),
        {"inputs": ("input",), "outputs": ("final_result",)},
    ),
    Graph("face corrector", _shared("faced/face_corrector.pb")),
    Graph("hey snips", _shared("hey_snips/hey_snips_3.pb")),
    Graph("MobileNetV2", lambda: untrained_model(MOBILENET_V2)),
    Graph("ResNet-50", lambda: untrained_model(RESNET50)),
    Graph("EfficientNet-B0", lambda: untrained_model(EFFICIENTNET_B0)),
)


def measured(graph: Graph) -> dict[str, Any]:
    """Return the figures of one graph: nodes, differences of outputs, and times in both modes.

    Raises:
        CaseUnavailableError: If the graph is not here.
    """
    import strop
    from strop.graph.frozen import read_graph
    from strop.graph.reading import Options, read

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = _frozen(graph.file(), folder)
        options = Options(**graph.options)
        model = read(path, folder, options)
        request = strop.Request(options=options)
        inputs = [bound.name for bound in model.binding.inputs]
        outputs = [bound.name for bound in model.binding.outputs]
        original = read_graph(model.path)
        graphs: dict[str, Any] = {"original": original}
        failures = {}
        for name, clean in (("optimize_for_inference", _for_inference), ("grappler", _grappled)):
            try:
                graphs[name] = clean(original, inputs, outputs)
            # Whatever the other tool raises is what its users see.
            except Exception as error:  # noqa: BLE001
                failures[name] = f"{type(error).__name__}: {error}"[:300]
        target = folder / "strop.pb"
        strop.simplify(path, target, request=request)
        graphs["strop"] = read_graph(target)
        random = np.random.default_rng(0)
        feed = {
            name: random.uniform(-1, 1, [n or 1 for n in spec.shape]).astype(spec.dtype)
            for name, spec in zip(inputs, model.signature.inputs, strict=True)
        }
        found: dict[str, Any] = {
            "nodes": {name: len(one.node) for name, one in graphs.items()},
            "bytes": {name: one.ByteSize() for name, one in graphs.items()},
            "failures": failures,
        }
        for mode, is_on in (("on", True), ("off", False)):
            calls, broken = _opened(graphs, feed, outputs, rewrites_at_load=is_on)
            failures |= broken
            found[mode] = _timed(calls, list(feed.values()))
    return found


def _frozen(path: Path, folder: Path) -> Path:
    """Return a frozen graph as it is, or a Keras model frozen as TensorFlow's own guide does it."""
    if path.suffix == ".pb":
        return path
    import keras
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    model = keras.models.load_model(path)
    spec = tf.TensorSpec([1, *model.input_shape[1:]], tf.float32, name="x")
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    frozen = convert_variables_to_constants_v2(function)
    tf.io.write_graph(frozen.graph.as_graph_def(), str(folder), "frozen.pb", as_text=False)
    return folder / "frozen.pb"


def _for_inference(definition: Any, inputs: list[str], outputs: list[str]) -> Any:
    """Clean a graph as ``python -m tensorflow.python.tools.optimize_for_inference`` does."""
    import tensorflow as tf
    from tensorflow.python.tools.optimize_for_inference_lib import optimize_for_inference

    copy = type(definition)()
    copy.CopyFrom(definition)
    types = {node.name: node.attr["dtype"].type for node in copy.node if "dtype" in node.attr}
    names = [name.split(":")[0] for name in inputs]
    kinds = [types.get(name, tf.float32.as_datatype_enum) for name in names]
    ends = [name.split(":")[0] for name in outputs]
    return optimize_for_inference(copy, names, ends, kinds)


def _grappled(definition: Any, inputs: list[str], outputs: list[str]) -> Any:
    """Clean a graph by Grappler with all that it does by default, and write the result down."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.grappler import tf_optimizer

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    meta = tf.compat.v1.train.export_meta_graph(graph_def=definition, graph=graph)
    keep = [name.split(":")[0] for name in (*inputs, *outputs)]
    meta.collection_def["train_op"].node_list.value.extend(keep)
    return tf_optimizer.OptimizeGraph(config_pb2.ConfigProto(), meta)


def _opened(
    graphs: Mapping[str, Any],
    feed: Mapping[str, Any],
    outputs: list[str],
    *,
    rewrites_at_load: bool,
) -> tuple[dict[str, Callable[..., Any]], dict[str, str]]:
    """Return what runs each graph, by name, and why those that don't run don't."""
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = not rewrites_at_load
    calls: dict[str, Callable[..., Any]] = {}
    broken = {}
    for name, definition in graphs.items():
        try:
            with tf.Graph().as_default() as graph:
                tf.graph_util.import_graph_def(definition, name="")
            call = tf.compat.v1.Session(graph=graph, config=config).make_callable(
                outputs, list(feed)
            )
            call(*feed.values())
        # Whatever another tool's graph raises is what its users see.
        except Exception as error:
            if name in ("original", "strop"):
                raise
            broken[name] = f"{type(error).__name__}: {error}"[:300]
            continue
        calls[name] = call
    return calls, broken


def _timed(calls: Mapping[str, Callable[..., Any]], given: list[Any]) -> dict[str, Any]:
    """Return milliseconds a call, strop's time over each other's, and the largest difference of an output."""

    def seconds(call: Callable[..., Any], count: int) -> float:
        taken = []
        for _ in range(count):
            start = time.perf_counter()
            call(*given)
            taken.append(time.perf_counter() - start)
        return float(np.median(taken))

    answers = {name: call(*given) for name, call in calls.items()}
    for call in calls.values():
        seconds(call, 20)
    count = {name: max(3, int(_ROUND_SECONDS / seconds(call, 5))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = np.random.default_rng(0)
    for _ in range(ROUNDS):
        for name in order.permutation(list(calls)):
            times[name].append(seconds(calls[name], count[name]))

    def difference(name: str) -> float:
        pairs = zip(answers["original"], answers[name], strict=True)
        return max(float(np.abs(a.astype("float64") - b).max()) for a, b in pairs)

    return {
        "ms": {name: float(np.median(rounds)) * 1e3 for name, rounds in times.items()},
        "ratio": {
            name: list(ratio_interval(times["strop"], times[name]))
            for name in times
            if name != "strop"
        },
        "difference": {name: difference(name) for name in calls},
    }


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return the figures as the lines of a table, and what they come to."""
    lines = [
        "| graph | Grappler at load | nodes: original, optimize_for_inference, Grappler, strop | "
        "ms: the same | strop / original | strop / optimize_for_inference | strop / Grappler | largest difference |",
        "|---|---|---|---|--:|--:|--:|--:|",
    ]
    ratios: dict[tuple[str, str], list[float]] = {}
    for graph, figures in found.items():
        for mode in ("on", "off"):
            timed = figures[mode]
            names = (*_RIVALS, "strop")
            nodes = ", ".join(str(figures["nodes"].get(name, "failed")) for name in names)
            times = ", ".join(
                f"{timed['ms'][name]:.3g}" if name in timed["ms"] else "–" for name in names
            )
            cells = []
            for name in _RIVALS:
                if name not in timed["ratio"]:
                    cells.append("failed")
                    continue
                value, low, high = timed["ratio"][name]
                ratios.setdefault((mode, name), []).append(value)
                cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
            lines.append(
                f"| {graph} | {mode} | {nodes} | {times} | {' | '.join(cells)} | "
                f"{timed['difference']['strop']:.2g} |"
            )
    lines.append("")
    for mode in ("on", "off"):
        means = [
            f"{np.exp(np.mean(np.log(ratios[mode, name]))):.3f} of {name}"
            for name in _RIVALS
            if (mode, name) in ratios
        ]
        lines.append(
            f"Geometric mean with Grappler at load {mode}: strop takes {', '.join(means)}."
        )
        lines.append("")
    return lines


def main() -> int:
    """Print the table, each graph measured in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graphs", description=__doc__)
    parser.add_argument("--graph", type=int, help="one of them alone, as JSON")
    arguments = parser.parse_args()
    if arguments.graph is not None:
        answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        try:
            answers.write(json.dumps(measured(GRAPHS[arguments.graph])) + "\n")
        except CaseUnavailableError as reason:
            answers.write(json.dumps({"skipped": str(reason)}) + "\n")
        return 0
    found = {}
    for place, graph in enumerate(GRAPHS):
        command = [sys.executable, "-m", "benchmarks.graphs", f"--graph={place}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{graph.name} failed: {done.stderr[-500:]}", file=sys.stderr)
            continue
        figures = json.loads(done.stdout)
        if "skipped" in figures:
            print(f"{graph.name}: skipped: {figures['skipped']}", file=sys.stderr)
            continue
        for name, failure in figures["failures"].items():
            print(f"{graph.name}: {name} failed: {failure}", file=sys.stderr)
        found[graph.name] = figures
    print("\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
