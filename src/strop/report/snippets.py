"""How to run an artifact with the engine's own API, without strop: the README beside it."""

from __future__ import annotations

from strop.core import registry
from strop.core.model import Form, Model
from strop.core.recipe import Recipe
from strop.core.signature import TensorSpec


def readme(model: Model, recipe: Recipe, source_name: str) -> str:
    """Return the README of an artifact; without lines for an engine whose own API is not known here."""
    lines = snippet(model, recipe)
    alone = ["Without strop:", "", "```python", lines, "```", ""] if lines else []
    return "\n".join(
        [
            f"# {source_name}, optimized",
            "",
            f"Made by `{recipe}`.",
            "",
            "With strop:",
            "",
            "```python",
            "import strop",
            "predictor = strop.load('.')",
            f"outputs = predictor({_given(model)})   # {model.signature}",
            "```",
            "",
            *alone,
            "`certificate.json` says how it was made, on which machine, and what was measured; `strop verify .` "
            "checks it again.",
            "",
        ]
    )


def _given(model: Model) -> str:
    names = model.signature.input_names
    if len(names) == 1:
        return names[0].split("/")[-1]
    return "{" + ", ".join(f"'{name}': ..." for name in names) + "}"


def snippet(model: Model, recipe: Recipe) -> str | None:
    """Return Python lines that run the model in its engine's own API on zeros, and leave `outputs` a list.

    None for a runtime of another package, whose API only that package knows.
    """
    written = _SNIPPETS.get(recipe.runtime)
    if written is None:
        return None
    part = recipe.settings.get("micro_batch")
    if not part:
        return written(model, recipe)
    others = {k: v for k, v in recipe.settings.items() if k not in ("micro_batch", "threads")}
    called = written(model, recipe.on(recipe.runtime, {**others, "threads": 1}))
    return f"{called}\n# A batch is cut into parts of {part} samples, each such a call; every thread takes some of them."


def _zeros(model: Model, spec: TensorSpec, position: int) -> str:
    bound = model.binding.inputs[position]
    batch = model.binding.batch or 1
    shape = [batch, *(16 if n is None else n for n in spec.shape[1:])]
    if bound.permutation:
        shape = [shape[axis] for axis in bound.permutation]
    note = ""
    if bound.scale is not None:
        note = f"  # codes: round(x / {bound.scale!r}) + {bound.zero_point}"
    return f"np.zeros({tuple(shape)}, '{bound.dtype}'),{note}"


def _inputs(model: Model) -> list[str]:
    return [
        "inputs = [",
        *(f"    {_zeros(model, spec, i)}" for i, spec in enumerate(model.sized.inputs)),
        "]",
    ]


def _litert(model: Model, recipe: Recipe) -> str:
    places_in = [bound.index for bound in model.binding.inputs]
    places_out = [bound.index for bound in model.binding.outputs]
    lines = [
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter",
        "",
        f"interpreter = Interpreter('{model.path.name}', num_threads={recipe.settings.get('threads', 1)})",
        *_inputs(model),
        f"places = [interpreter.get_input_details()[i]['index'] for i in {places_in}]",
        "for place, array in zip(places, inputs):",
        "    interpreter.resize_tensor_input(place, array.shape)",
        "interpreter.allocate_tensors()",
        "for place, array in zip(places, inputs):",
        "    interpreter.set_tensor(place, array)",
        "interpreter.invoke()",
        "details = interpreter.get_output_details()",
        f"outputs = [interpreter.get_tensor(details[i]['index']) for i in {places_out}]",
    ]
    return "\n".join(lines)


def _onnxruntime(model: Model, recipe: Recipe) -> str:
    from strop.core import registry

    runtime = registry.runtimes.get("onnxruntime").from_settings(recipe.settings)
    left_out = runtime.disabled_optimizers()  # type: ignore[attr-defined]
    level = runtime.optimization_level()  # type: ignore[attr-defined]
    spin = recipe.settings.get("spin", True)
    waiting = "options.add_session_config_entry('session.intra_op.allow_spinning', '0')"
    names_in = [bound.name for bound in model.binding.inputs]
    names_out = [bound.name for bound in model.binding.outputs]
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "",
        "options = onnxruntime.SessionOptions()",
        f"options.intra_op_num_threads = {recipe.settings.get('threads', 0)}",
        "options.inter_op_num_threads = 1",
        f"options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.{level}",
        *([] if spin else [waiting]),
        "session = onnxruntime.InferenceSession(",
        f"    '{model.path.name}', options, providers=['CPUExecutionProvider'], disabled_optimizers={left_out}",
        ")",
        *_inputs(model),
        f"outputs = session.run({names_out}, dict(zip({names_in}, inputs)))",
    ]
    return "\n".join(lines)


def _openvino(model: Model, recipe: Recipe) -> str:
    from strop.core import registry

    runtime = registry.runtimes.get("openvino").from_settings(recipe.settings)
    properties = runtime.properties()  # type: ignore[attr-defined]
    places_in = [bound.index for bound in model.binding.inputs]
    places_out = [bound.index for bound in model.binding.outputs]
    lines = [
        "import numpy as np",
        "import openvino",
        "",
        f"compiled = openvino.Core().compile_model('{model.path.name}', 'CPU', {properties})",
        *_inputs(model),
        f"results = compiled(dict(zip({places_in}, inputs)))",
        f"outputs = [results[i] for i in {places_out}]",
    ]
    return "\n".join(lines)


def _tensorflow(model: Model, recipe: Recipe) -> str:
    imports = ["import keras"] if model.form is Form.KERAS else []
    lines = [*_environment(recipe), *imports, "import numpy as np", "import tensorflow as tf", ""]
    threads = recipe.settings.get("threads", 0)
    if threads:
        lines.append(f"tf.config.threading.set_intra_op_parallelism_threads({threads})")
    if recipe.settings.get("jit") == "auto":
        lines.append("tf.config.optimizer.set_jit('autoclustering')")
    compiled = ", jit_compile=True" if recipe.settings.get("jit") == "xla" else ""
    return "\n".join([*lines, *_TENSORFLOW[model.form](model, compiled)])


def _environment(recipe: Recipe) -> list[str]:
    """Return what must be set before the engine is imported."""
    if recipe.settings.get("jit") != "auto":
        return []
    variables = registry.runtimes.get(recipe.runtime).environment()
    return ["import os", "", f"os.environ.update({variables})   # before TensorFlow runs", ""]


def _keras_lines(model: Model, compiled: str) -> list[str]:
    called = "model(list(x) if len(x) > 1 else x[0], training=False)"
    trusting = ", safe_mode=False" if "lambda" in model.facts.get("allow", ()) else ""
    return [
        f"model = keras.models.load_model('{model.path.name}', compile=False{trusting})",
        *_inputs(model),
        f"run = tf.function(lambda *x: {called}{compiled})",
        "outputs = [np.asarray(output) for output in tf.nest.flatten(run(*inputs))]",
    ]


def _saved_model_lines(model: Model, compiled: str) -> list[str]:
    names_in, names_out = _names(model)
    signature = model.facts.get("served", "serving_default")
    return [
        f"loaded = tf.saved_model.load('{model.path.name}')",
        f"serve = loaded.signatures['{signature}']",
        f"run = tf.function(lambda *x: serve(**dict(zip({names_in}, x))){compiled})",
        *_inputs(model),
        "results = run(*map(tf.constant, inputs))",
        f"outputs = [results[name].numpy() for name in {names_out}]",
    ]


def _graph_lines(model: Model, compiled: str) -> list[str]:
    names_in, names_out = _names(model)
    return [
        "from pathlib import Path",
        "",
        "definition = tf.compat.v1.GraphDef()",
        f"definition.ParseFromString(Path('{model.path.name}').read_bytes())",
        "graph = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(definition, name=''), [])",
        f"pruned = graph.prune({names_in}, {names_out})",
        f"run = tf.function(lambda *x: pruned(*x){compiled})",
        *_inputs(model),
        "outputs = [output.numpy() for output in run(*map(tf.constant, inputs))]",
    ]


def _names(model: Model) -> tuple[list[str], list[str]]:
    bound = model.binding
    return [b.name for b in bound.inputs], [b.name for b in bound.outputs]


_TENSORFLOW = {
    Form.KERAS: _keras_lines,
    Form.SAVED_MODEL: _saved_model_lines,
    Form.GRAPH_DEF: _graph_lines,
}
_SNIPPETS = {
    "litert": _litert,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorflow": _tensorflow,
}
