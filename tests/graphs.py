"""Random frozen graphs for the rewritings of graphs: a program is drawn, then built in float32 and in magnitudes.

A graph that is rewritten rounds otherwise. How far its answers may be off follows from the graph (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2002, section 3): an output that is made by sums and products, k roundings deep,
is within γ_k·A of the true one, where A is what the graph gives with every number replaced by its magnitude and every
difference by a sum. Functions that bring two numbers no further apart (ReLU, maxima) may be left out of A.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from strop.core.contracts import Context
from strop.core.evaluation import Goal
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec

UNIT = 2.0**-24  # the unit roundoff of float32
SIZE = (2, 6, 5)  # batch, height, width of what goes in
INPUT, SCALARS = "x", ("Mul", "AddV2", "Sub", "RealDiv")


@dataclass(frozen=True)
class Program:
    """What a graph consists of: operations with their settings, each on an earlier tensor, and which are outputs."""

    channels: int
    steps: tuple[dict[str, Any], ...]
    outputs: tuple[int, ...]
    seed: int


def _step(draw: Any, kinds: tuple[str, ...]) -> dict[str, Any]:
    return {
        "kind": draw(st.sampled_from(kinds)),
        # Mostly on the last: chains are where rewritings find something.
        "on": draw(st.one_of(st.just(0), st.just(0), st.just(0), st.integers(1, 4))),
        "size": draw(st.integers(1, 3)),
        "stride": draw(st.integers(1, 2)),
        "padding": draw(st.sampled_from(["SAME", "VALID", "EXPLICIT"])),
        "channels": draw(st.integers(1, 4)),
        "shared": draw(st.booleans()),
        "version": draw(
            st.sampled_from(["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
        ),
        "by": draw(st.sampled_from(SCALARS)),
        "per_channel": draw(st.booleans()),
        "flipped": draw(st.booleans()),
        "awaits": draw(st.integers(0, 9)) == 0,
    }


KINDS = (
    "conv", "conv", "depthwise", "transposed", "bias", "norm", "norm", "written_norm", "arithmetic", "relu", "relu6",
    "identity", "pad", "mirror", "residual", "concat", "stop", "check", "pool", "call", "channels_first",
)  # fmt: skip


@st.composite
def programs(draw: Any, kinds: tuple[str, ...] = KINDS, most: int = 8) -> Program:
    """Draw a program."""
    steps = [_step(draw, kinds) for _ in range(draw(st.integers(1, most)))]
    if draw(st.booleans()):
        steps.append({**_step(draw, ("dense",)), "on": 0})
        steps += [
            {**_step(draw, ("arithmetic", "bias", "relu")), "on": 0}
            for _ in range(draw(st.integers(0, 3)))
        ]
    outputs = draw(st.lists(st.integers(0, 3), max_size=2, unique=True))
    return Program(
        draw(st.integers(1, 4)), tuple(steps), tuple({0, *outputs}), draw(st.integers(0, 2**31))
    )


@dataclass
class Built:
    """A program as a graph.

    Attributes:
        definition: The `GraphDef`.
        inputs: Tensor names.
        outputs: The same.
        roundings: How many roundings an output is deep, at most.
    """

    definition: Any
    inputs: list[str]
    outputs: list[str]
    roundings: int


@dataclass
class _Builder:
    program: Program
    in_magnitudes: bool
    roundings: int = 0
    made: list[Any] = field(default_factory=list)
    kernels: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.program.seed)

    def constant(
        self, *shape: int, low: float = -1.0, high: float = 1.0, negated: bool = False
    ) -> Any:
        """Return a constant; in magnitudes its magnitude, or that negated where it is to be taken away."""
        import tensorflow as tf

        value = self.random.uniform(low, high, shape).astype("float32")
        if self.in_magnitudes:
            value = -np.abs(value) if negated else np.abs(value)
        return tf.constant(value)

    def kernel(self, shared: bool, *shape: int) -> Any:
        """Return a kernel; where it is to be shared, the last one of this shape."""
        fresh = self.constant(
            *shape
        )  # drawn in any case, so that the numbers after it stay the same
        if not shared or shape not in self.kernels:
            self.kernels[shape] = fresh
        return self.kernels[shape]

    def add(self, step: dict[str, Any]) -> None:
        """Add a step's operation to the graph."""
        import tensorflow as tf

        x = self.made[-1 - step["on"] % len(self.made)]
        is_image = x.shape.rank == 4
        kind = step["kind"]
        if not is_image and kind not in ("bias", "arithmetic", "relu", "identity"):
            return
        waits = [self.made[0].op] if step["awaits"] else []
        with tf.control_dependencies(waits):
            self.made.append(getattr(self, f"_{kind}")(x, step))

    def _strided(self, step: dict[str, Any]) -> dict[str, Any]:
        return {"strides": [1, step["stride"], step["stride"], 1], "padding": step["padding"]}

    def _fits(self, x: Any, size: int, padding: str) -> bool:
        more = {"SAME": (size, size), "VALID": (0, 0), "EXPLICIT": (1, 2)}[padding]
        return all(
            given + around >= size for given, around in zip(x.shape[1:3], more, strict=True)
        )

    def _conv(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        size, given = step["size"], int(x.shape[-1])
        if not self._fits(x, size, step["padding"]):
            return x
        groups = 2 if given % 2 == 0 and step["flipped"] else 1
        count = step["channels"] * groups
        kernel = self.kernel(step["shared"], size, size, given // groups, count)
        self.roundings += size * size * given + 8
        around = [0, 0, 1, 0, 0, 2, 0, 0] if step["padding"] == "EXPLICIT" else []
        return tf.raw_ops.Conv2D(
            input=x, filter=kernel, explicit_paddings=around, **self._strided(step)
        )

    def _depthwise(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        # One number a channel and no more is what oneDNN's kernel fails on.
        size = max(step["size"], 2)
        padding = "SAME" if step["padding"] == "EXPLICIT" else step["padding"]
        if not self._fits(x, size, padding):
            return x
        kernel = self.kernel(
            step["shared"], size, size, int(x.shape[-1]), 1 + step["channels"] % 2
        )
        self.roundings += size**2 + 8
        return tf.raw_ops.DepthwiseConv2dNative(
            input=x, filter=kernel, **{**self._strided(step), "padding": padding}
        )

    def _transposed(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        stride, given, size = step["stride"], int(x.shape[-1]), step["size"]
        kernel = self.kernel(step["shared"], size, size, step["channels"], given)
        shape = [SIZE[0], x.shape[1] * stride, x.shape[2] * stride, step["channels"]]
        if max(shape[1:3]) > 24:
            return x
        self.roundings += size * size * given + 8
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.constant(shape), filter=kernel, out_backprop=x,
            strides=[1, stride, stride, 1], padding="SAME",
        )  # fmt: skip

    def _dense(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        width = int(np.prod(x.shape[1:]))
        flat = tf.reshape(x, [SIZE[0], width])
        self.roundings += width + 8
        shape = (step["channels"], width) if step["flipped"] else (width, step["channels"])
        return tf.raw_ops.MatMul(
            a=flat, b=self.kernel(step["shared"], *shape), transpose_b=step["flipped"]
        )

    def _bias(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        self.roundings += 4
        return tf.raw_ops.BiasAdd(value=x, bias=self.constant(int(x.shape[-1])))

    def _norm(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        size = int(x.shape[-1])
        self.roundings += 16
        found = getattr(tf.raw_ops, step["version"])(
            x=x, scale=self.constant(size), offset=self.constant(size),
            mean=self.constant(size, negated=True), variance=self.constant(size, low=0.2, high=2.0),
            epsilon=1e-3, is_training=False,
        )  # fmt: skip
        return found.y

    def _written_norm(self, x: Any, step: dict[str, Any]) -> Any:
        """As Keras and older exporters write it out."""
        import tensorflow as tf

        size = int(x.shape[-1])
        self.roundings += 20
        gamma, beta = self.constant(size), self.constant(size)
        mean, variance = self.constant(size, negated=True), self.constant(size, low=0.2, high=2.0)
        step_ = tf.raw_ops.Mul(x=tf.raw_ops.Rsqrt(x=variance + 1e-3), y=gamma)
        scaled = tf.raw_ops.Mul(x=x, y=step_)
        return tf.raw_ops.AddV2(
            x=scaled, y=tf.raw_ops.Sub(x=beta, y=tf.raw_ops.Mul(x=mean, y=step_))
        )

    def _arithmetic(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        shape = (int(x.shape[-1]),) if step["per_channel"] else ()
        self.roundings += 4
        name, is_quotient = step["by"], step["by"] == "RealDiv"
        takes = name == "Sub" and not step["flipped"]
        other = self.constant(*shape, low=0.5 if is_quotient else -1.0, high=2.0, negated=takes)
        if name == "Sub" and step["flipped"]:
            # other − x; in magnitudes a sum.
            return (
                tf.raw_ops.AddV2(x=other, y=x)
                if self.in_magnitudes
                else tf.raw_ops.Sub(x=other, y=x)
            )
        operands = (other, x) if step["flipped"] and not is_quotient else (x, other)
        return getattr(tf.raw_ops, name)(x=operands[0], y=operands[1])

    def _relu(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        return tf.identity(x) if self.in_magnitudes else tf.raw_ops.Relu(features=x)

    def _relu6(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        return tf.identity(x) if self.in_magnitudes else tf.raw_ops.Relu6(features=x)

    def _identity(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        return tf.identity(x)

    def _stop(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        return tf.stop_gradient(x)

    def _check(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        return tf.raw_ops.CheckNumerics(tensor=x, message="not finite")

    def _pool(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        window = {"ksize": [1, 3, 3, 1], "strides": [1, 1, 1, 1], "padding": "SAME"}
        if self.in_magnitudes:
            # The mean of nine magnitudes is at least a ninth of the largest.
            return tf.raw_ops.AvgPool(value=9 * x, **window)
        return tf.raw_ops.MaxPool(input=x, **window)

    def _pad(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        around = tf.constant([[0, 0], [1, 0], [0, 1], [0, 0]])
        if step["flipped"]:
            return tf.raw_ops.PadV2(
                input=x,
                paddings=around,
                constant_values=self.constant() if step["shared"] else 0.0,
            )
        return tf.raw_ops.Pad(input=x, paddings=around)

    def _mirror(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        return tf.raw_ops.MirrorPad(
            input=x, paddings=[[0, 0], [1, 1], [0, 0], [0, 0]], mode="SYMMETRIC"
        )

    def _call(self, x: Any, step: dict[str, Any]) -> Any:
        """A function that is called, and calls another."""
        import tensorflow as tf

        other = self.constant(int(x.shape[-1]))
        self.roundings += 4
        inner = tf.function(lambda a: tf.raw_ops.Mul(x=a, y=other))
        return tf.function(lambda a: tf.raw_ops.AddV2(x=inner(a), y=other))(x)

    def _channels_first(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        self.roundings += 4
        turned = tf.transpose(x, [0, 3, 1, 2])
        added = tf.raw_ops.BiasAdd(
            value=turned, bias=self.constant(int(x.shape[-1])), data_format="NCHW"
        )
        return tf.transpose(added, [0, 2, 3, 1])

    def _residual(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        other = next((t for t in self.made[::-1] if t is not x and t.shape == x.shape), x)
        self.roundings += 1
        return tf.raw_ops.AddV2(x=x, y=other)

    def _concat(self, x: Any, step: dict[str, Any]) -> Any:
        import tensorflow as tf

        others = [t for t in self.made[::-1] if t.shape.rank == 4 and t.shape[:3] == x.shape[:3]]
        found = tf.concat([x, others[-1]], -1)
        return found if found.shape[-1] <= 8 else x


def built(program: Program, *, in_magnitudes: bool = False) -> Built:
    """Return a program as a graph, or as the graph of its magnitudes."""
    import tensorflow as tf

    builder = _Builder(program, in_magnitudes)
    with tf.Graph().as_default() as graph:
        builder.made.append(tf.compat.v1.placeholder(tf.float32, [*SIZE, program.channels], INPUT))
        for step in program.steps:
            builder.add(step)
        chosen = [builder.made[-1 - place % len(builder.made)] for place in program.outputs]
        # What goes in is no output: that is another matter, with a test of its own.
        outputs = list(dict.fromkeys(t.name for t in chosen if t is not builder.made[0]))
        if not outputs:
            outputs = [tf.identity(builder.made[-1]).name]
    return Built(graph.as_graph_def(), [f"{INPUT}:0"], outputs, builder.roundings + 8)


def rewritten(
    kind: Any,
    definition: Any,
    *,
    inputs: tuple[str, ...] = (f"{INPUT}:0",),
    outputs: tuple[str, ...] = ("y:0",),
    shape: tuple[int | None, ...] | None = None,
) -> Any:
    """Return what a pass makes of a graph; None where it finds nothing to do. The graph given stays as it is.

    Args:
        kind: The pass.
        definition: The graph.
        inputs: Its inputs.
        outputs: Its outputs.
        shape: What the signature says of the inputs; what their placeholders do where None.
    """
    from strop.core.contracts import Unchanged
    from strop.graph.frozen import read_graph

    with tempfile.TemporaryDirectory() as folder:
        model = as_model(definition, inputs, outputs, Path(folder), shape)
        found = kind().apply(model, Bare(Path(folder)))
        return None if isinstance(found, Unchanged) else read_graph(found.path)


def as_model(
    definition: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    folder: Path,
    shape: tuple[int | None, ...] | None = None,
) -> Model:
    """Return a graph as a model on disk."""
    path = folder / "drawn.pb"
    path.write_bytes(definition.SerializeToString(deterministic=True))
    placeholders = {node.name: node for node in definition.node if node.op == "Placeholder"}

    def written(name: str) -> tuple[int | None, ...]:
        dimensions = placeholders[name.split(":")[0]].attr["shape"].shape.dim
        return tuple(None if d.size < 0 else d.size for d in dimensions)

    signature = Signature(
        tuple(TensorSpec(name, shape or written(name), "float32") for name in inputs),
        tuple(TensorSpec(name, (None,), "float32") for name in outputs),
    )
    binding = Binding.plain(signature, list(inputs), list(outputs))
    return Model.at(Form.GRAPH_DEF, path, signature, binding)


class Bare(Context):
    """A context for passes that need nothing beside the model."""

    seed, goal = 0, Goal()

    def __init__(self, folder: Path) -> None:
        self.workspace = Path(tempfile.mkdtemp(dir=folder))

    calibration = training = property(lambda self: pytest.fail("it said that it needs no samples"))

    def evaluate(self, model: Any, *tail: Any) -> Any:
        pytest.fail("it said that it needs no samples")

    def judge(self, answer: Any) -> Any:
        pytest.fail("it said that it needs no samples")

    def progress(self, fraction: float, note: str = "") -> None:
        pass


def run(definition: Any, outputs: list[str], x: np.ndarray) -> list[np.ndarray]:
    """Return what a graph answers, run as it stands: nothing is optimized at load."""
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with (
        tf.Graph().as_default() as graph,
        tf.compat.v1.Session(graph=graph, config=config) as session,
    ):
        tf.graph_util.import_graph_def(definition, name="")
        return session.run(outputs, {f"{INPUT}:0": x})


def answers_and_bounds(
    program: Program,
) -> tuple[Built, np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Return a program's graph, an input, its answers, and how far other roundings of it may be from those."""
    graph, magnitudes = built(program), built(program, in_magnitudes=True)
    shape = (*SIZE, program.channels)
    x = np.random.default_rng(program.seed).uniform(-1, 1, shape).astype("float32")
    answers = run(graph.definition, graph.outputs, x)
    sizes = run(magnitudes.definition, magnitudes.outputs, np.abs(x))
    depth = graph.roundings * UNIT
    bounds = [2 * depth / (1 - depth) * size + np.finfo("float32").tiny for size in sizes]
    return graph, x, answers, bounds
