"""What a Predictor adds to the engine's own API with pre-bound tensors, in microseconds a call.

    python -m benchmarks.predictor_overhead

Both run the same file in one process, in short blocks in turn. The engine's side is the bare call on tensors
that were bound once and already hold the input; the Predictor checks the input, copies it in and copies the
answer out. At most 10 µs is what strop promises for inputs up to 64 KB.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import strop
from strop.core.recipe import Recipe, Step
from strop.numerics.statistics import Interval, median_interval

_BLOCKS, _CALLS = 200, 40
# 64 KB, 16 KB, 1 KB of float32.
_SIDES = (128, 64, 16)

_CONVERSIONS = {
    "litert": ("convert.graph_def", "convert.litert"),
    "onnxruntime": ("convert.graph_def", "convert.onnx"),
    "openvino": ("convert.graph_def", "convert.openvino"),
}


def model_file(folder: Path, side: int) -> Path:
    """Write a network that does next to nothing with an image of `side` × `side`."""
    import keras

    keras.utils.set_random_seed(0)
    pixels = keras.Input((side, side, 1), name="pixels")
    pooled = keras.layers.AveragePooling2D(side // 8)(pixels)
    out = keras.layers.Dense(10)(keras.layers.Flatten()(pooled))
    path = folder / f"pool{side}.keras"
    keras.Model(pixels, out).save(path)
    return path


def by_the_engine(runtime: str, file: Path, inputs: np.ndarray[Any, Any]) -> Callable[[], Any]:
    """Return the engine's own call, with `inputs` in tensors bound beforehand, on one thread."""
    match runtime:
        case "litert":
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(model_path=str(file), num_threads=1)
            index = interpreter.get_input_details()[0]["index"]
            interpreter.resize_tensor_input(index, inputs.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(index, inputs)
            invoke: Callable[[], Any] = interpreter.invoke
            return invoke
        case "onnxruntime":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
            name, out = session.get_inputs()[0].name, session.get_outputs()[0].name
            binding = session.io_binding()
            value = onnxruntime.OrtValue.ortvalue_from_numpy(inputs)
            (result,) = session.run([out], {name: inputs})
            answer = onnxruntime.OrtValue.ortvalue_from_numpy(result)
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(out, answer)

            bound = (value, answer)  # the binding points at them and does not keep them alive

            def call() -> object:
                session.run_with_iobinding(binding)
                return bound

            return call
        case _:
            import openvino

            core = openvino.Core()
            model = core.read_model(str(file))
            model.reshape(list(inputs.shape))
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_NUM_THREADS": 1,
                    "NUM_STREAMS": "1",
                    "INFERENCE_PRECISION_HINT": "f32",
                },
            )
            request = compiled.create_infer_request()
            request.set_input_tensor(openvino.Tensor(inputs, shared_memory=True))
            infer: Callable[[], Any] = request.infer
            return infer


def added(runtime: str, artifact: Path, side: int) -> tuple[Interval, float]:
    """Return what a Predictor adds, and what the engine's own call takes, in microseconds."""
    predictor = strop.load(artifact)
    inputs = np.random.default_rng(0).random((1, side, side, 1), np.float32)
    file = next(
        path for path in artifact.rglob("*") if path.suffix in (".tflite", ".onnx", ".xml")
    )
    bare = by_the_engine(runtime, file, inputs)
    ours = lambda: predictor(inputs)  # noqa: E731 - so that both are called without arguments
    for call in (bare, ours) * 200:
        call()
    gaps, times = [], []
    for block in range(_BLOCKS):
        order = (bare, ours) if block % 2 else (ours, bare)
        took = {call: _microseconds(call) for call in order}
        gaps.append(took[ours] - took[bare])
        times.append(took[bare])
    return median_interval(gaps), float(np.median(times))


def _microseconds(call: Callable[[], Any]) -> float:
    """Return the median of a block of calls."""
    taken = []
    for _ in range(_CALLS):
        start = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - start)
    return float(np.median(taken)) / 1e3


def main() -> int:
    """Measure every engine at every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", action="append", choices=sorted(_CONVERSIONS))
    arguments = parser.parse_args()
    print("| runtime | input | the engine's call | added by the Predictor |")
    print("|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="strop-") as scratch:
        models = {side: model_file(Path(scratch), side) for side in _SIDES}
        for runtime in arguments.runtime or _CONVERSIONS:
            steps = tuple(Step(name) for name in _CONVERSIONS[runtime])
            for side, model in models.items():
                recipe = Recipe(steps, runtime, {"threads": 1})
                artifact = strop.apply(recipe, model, output=Path(scratch) / f"{runtime}{side}")
                gap, bare = added(runtime, artifact, side)
                print(
                    f"| {runtime} | {side * side * 4 / 1024:g} KB | {bare:.1f} µs | "
                    f"{gap.value:.1f} µs ({gap.low:.1f} to {gap.high:.1f}) |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
