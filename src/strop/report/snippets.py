"""How to run an artifact with the engine's own API, without strop: the README beside it."""

from __future__ import annotations

from strop.core.model import Form, Model
from strop.core.recipe import Recipe
from strop.core.signature import TensorSpec


def readme(model: Model, recipe: Recipe, source_name: str) -> str:
    """Return the README of an artifact."""
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
            "Without strop:",
            "",
            "```python",
            snippet(model, recipe),
            "```",
            "",
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


def snippet(model: Model, recipe: Recipe) -> str:
    """Return Python lines that run the model in its engine's own API on zeros, and leave `outputs` a list."""
    return _SNIPPETS[recipe.runtime](model, recipe)


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
        *(f"    {_zeros(model, spec, i)}" for i, spec in enumerate(model.signature.inputs)),
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
    names_in = [bound.name for bound in model.binding.inputs]
    names_out = [bound.name for bound in model.binding.outputs]
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "",
        "options = onnxruntime.SessionOptions()",
        f"options.intra_op_num_threads = {recipe.settings.get('threads', 0)}",
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
    if model.form is Form.KERAS:
        lines = [
            "import keras",
            "import numpy as np",
            "import tensorflow as tf",
            "",
            f"model = keras.models.load_model('{model.path.name}', compile=False)",
            *_inputs(model),
            f"run = tf.function(lambda *x: model(list(x) if len(x) > 1 else x[0], training=False), jit_compile={recipe.settings.get('jit') == 'xla' or None})",
            "outputs = [np.asarray(output) for output in tf.nest.flatten(run(*inputs))]",
        ]
        return "\n".join(lines)
    names_in = [bound.name for bound in model.binding.inputs]
    names_out = [bound.name for bound in model.binding.outputs]
    load = [
        "definition = tf.compat.v1.GraphDef()",
        f"definition.ParseFromString(open('{model.path.name}', 'rb').read())",
        "graph = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(definition, name=''), [])",
        f"pruned = graph.prune({names_in}, {names_out})",
        f"run = tf.function(lambda *x: pruned(*x), jit_compile={recipe.settings.get('jit') == 'xla' or None})",
        *_inputs(model),
        "outputs = [output.numpy() for output in run(*map(tf.constant, inputs))]",
    ]
    if model.form is Form.SAVED_MODEL:
        load = [
            f"run = tf.saved_model.load('{model.path.name}').signatures['{model.facts.get('signature', 'serving_default')}']",
            *_inputs(model),
            f"results = run(**dict(zip({names_in}, map(tf.constant, inputs))))",
            f"outputs = [results[name].numpy() for name in {names_out}]",
        ]
    return "\n".join(["import numpy as np", "import tensorflow as tf", "", *load])


_SNIPPETS = {
    "litert": _litert,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorflow": _tensorflow,
}
