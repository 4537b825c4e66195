"""What a model is: its operations by kind, its parameters, and its multiply-accumulates, each counted from its own form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from strop.core.model import Form, Model
from strop.graph import macs
from strop.graph.graph_safety import with_called


@dataclass(frozen=True)
class Description:
    """What there is to say of a model by looking at its graph.

    Attributes:
        operations: How many of each kind, in the form's own words; most frequent first.
        parameters: A Keras model's own; in other forms, constant numbers of more than a scalar.
        macs: Multiply-accumulates for one sample; None where they can't be told.
    """

    operations: dict[str, int]
    parameters: int
    macs: int | None


def describe(model: Model) -> Description:
    """Return what there is to say of `model`; Keras models and SavedModels are frozen for it first."""
    return _BY_FORM[model.form](model)


def _keras(model: Model) -> Description:
    from strop.graph.frozen import freeze
    from strop.graph.keras_files import opened
    from strop.graph.keras_models import by_name

    loaded = opened(model)
    graph = freeze(
        lambda *tensors: by_name(loaded, tensors, model.signature),
        model.signature,
        batch=_batch(model),
    )
    found = _of_graph(graph.definition, graph.definition, model)
    return Description(found.operations, int(loaded.count_params()), found.macs)


def _saved_model(model: Model) -> Description:
    from strop.graph.frozen import freeze
    from strop.graph.saved_models import serving_function

    graph = freeze(serving_function(model), model.signature, batch=_batch(model))
    return _of_graph(graph.definition, graph.definition, model)


def _graph_def(model: Model) -> Description:
    from strop.graph.frozen import frozen_of, read_graph, with_shapes

    fixed = with_shapes(frozen_of(model), model.signature, batch=_batch(model))
    return _of_graph(read_graph(model.path), fixed.definition, model)


def _of_graph(definition: Any, fixed: Any, model: Model) -> Description:
    """Return what there is to say of a graph, counted in the same graph with its batch `fixed`."""
    import tensorflow as tf

    nodes = list(with_called(definition.library, definition.node))
    parameters = 0
    for node in nodes:
        dtype = tf.as_dtype(node.attr["dtype"].type) if node.op == "Const" else tf.int32
        if dtype.is_floating:
            parameters += _elements([d.size for d in node.attr["value"].tensor.tensor_shape.dim])
    kinds = Counter(node.op for node in nodes)
    return Description(_ordered(kinds), parameters, _a_sample(macs.of_graph_def(fixed), model))


def _litert(model: Model) -> Description:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(model.path),
        # With XNNPACK on, the operations it took over are one opaque node.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    operations = interpreter._get_ops_details()  # the bodies of loops are not shown
    kinds = Counter(operation["op_name"] for operation in operations)
    parameters = _constants(interpreter, operations)
    return Description(_ordered(kinds), parameters, _run_once(interpreter, model))


def _constants(interpreter: Any, operations: list[Any]) -> int:
    """Return how many constant numbers a flatbuffer has: those in tensors that nothing makes and nobody feeds."""
    read = {int(place) for operation in operations for place in operation["inputs"]}
    made = {int(place) for operation in operations for place in operation["outputs"]}
    fed = {details["index"] for details in interpreter.get_input_details()}
    return sum(
        _elements(details["shape"].tolist())
        for details in interpreter.get_tensor_details()
        if details["index"] in read - made - fed
    )


def _run_once(interpreter: Any, model: Model) -> int | None:
    """Return the multiply-accumulates for one sample, of a call on zeros: LiteRT works shapes out as it goes."""
    if model.signature.free_dimensions():
        return None
    for bound, spec in zip(model.binding.inputs, model.signature.inputs, strict=True):
        details = interpreter.get_input_details()[bound.index]
        if model.binding.batch is None and spec.shape:
            interpreter.resize_tensor_input(details["index"], [1, *spec.shape[1:]])
    try:
        interpreter.allocate_tensors()
        for details in interpreter.get_input_details():
            interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
        interpreter.invoke()
    except (
        RuntimeError,
        ValueError,
    ):  # what LiteRT answers with to an operation that it can't run
        return None
    return _a_sample(macs.of_flatbuffer(interpreter), model)


def _onnx(model: Model) -> Description:
    import onnx

    content = onnx.load(str(model.path))
    kinds = Counter(node.op_type for node in content.graph.node)
    parameters = sum(_elements(tensor.dims) for tensor in content.graph.initializer)
    for value in content.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and not dimensions[0].dim_value:
            dimensions[0].dim_value = 1
    return Description(_ordered(kinds), parameters, _a_sample(macs.of_onnx(content), model))


def _openvino(model: Model) -> Description:
    import openvino

    graph = openvino.Core().read_model(str(model.path))
    dynamic = {
        port: openvino.PartialShape([1, *list(port.partial_shape)[1:]])
        for port in graph.inputs
        if port.partial_shape.is_dynamic
    }
    if dynamic:
        graph.reshape(dynamic)
    operations = list(_with_bodies(graph))
    parameters = sum(
        _elements(node.get_output_shape(0))
        for node in operations
        if node.get_type_name() == "Constant"
    )
    kinds = Counter(node.get_type_name() for node in operations)
    return Description(_ordered(kinds), parameters, _a_sample(macs.of_openvino(graph), model))


def _with_bodies(graph: Any) -> Iterator[Any]:
    for node in graph.get_ordered_ops():
        yield node
        if node.get_type_name() in ("Loop", "TensorIterator"):
            yield from _with_bodies(node.get_function())


def _elements(shape: Any) -> int:
    """Return how many numbers a constant has that counts as a parameter; 0 for a scalar."""
    return prod(shape) if len(shape) else 0


def _batch(model: Model) -> int | None:
    """Return the batch size to count at, where the model has none of its own."""
    return None if model.binding.batch else 1


def _a_sample(found: int | None, model: Model) -> int | None:
    return None if found is None else found // (model.binding.batch or 1)


def _ordered(kinds: Counter[str]) -> dict[str, int]:
    return dict(kinds.most_common())


_BY_FORM: dict[Form, Callable[[Model], Description]] = {
    Form.KERAS: _keras,
    Form.SAVED_MODEL: _saved_model,
    Form.GRAPH_DEF: _graph_def,
    Form.LITERT: _litert,
    Form.ONNX: _onnx,
    Form.OPENVINO: _openvino,
}
