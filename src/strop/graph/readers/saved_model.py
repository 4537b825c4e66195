"""SavedModel folders, Keras-made or not, and those that only TensorFlow 1's loader can load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from strop.core.errors import ModelError, message
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.graph_safety import refuse_unsafe, upstream, with_called
from strop.graph.quiet import quiet
from strop.graph.reading import Options, shaped


def read(path: Path, workspace: Path, options: Options) -> Model:
    """Return the SavedModel, or a frozen graph of it where `saved_model.load` refuses."""
    import tensorflow as tf

    with quiet():
        meta = _meta_graph(path)
        refuse_unsafe(_run(meta), path, options.allow)
        refuse_unsafe(_restoring(meta), path, options.allow, may_restore=True)
        name, definition = _chosen(meta.signature_def, options.signature, path)
        try:
            loaded = tf.saved_model.load(str(path), tags=list(meta.meta_info_def.tags))
            if name not in loaded.signatures:
                raise KeyError(name)
        # What the second loader is for can't be told from the error (`add_slot` is an AttributeError).
        except Exception:  # noqa: BLE001
            return _frozen(path, workspace, meta, definition, options)
    signature = _signature(definition, options, path)
    binding = Binding.plain(signature, batch=signature.batch)
    content = _content(loaded.signatures[name], signature)
    return Model.at(Form.SAVED_MODEL, path.resolve(), signature, binding, served=name, **content)


def _content(serve: Any, signature: Signature) -> dict[str, str]:
    """Return the digest of what is served, as a fact: each export of one model writes other bytes.

    None where the graph can't be frozen, which the first conversion will tell; then bytes decide.
    """
    from strop.graph.frozen import freeze
    from strop.graph.graph_content import content_digest

    def function(*tensors: Any) -> list[Any]:
        results = serve(**dict(zip(signature.input_names, tensors, strict=True)))
        return [results[name] for name in signature.output_names]

    try:
        return {"content": content_digest(freeze(function, signature))}
    # TensorFlow raises errors of every kind while tracing.
    except Exception:  # noqa: BLE001
        return {}


def _meta_graph(path: Path) -> Any:
    """Return the part of a SavedModel that is for use, where it has several (for training, for one device)."""
    from tensorflow.python.saved_model import loader_impl

    graphs = loader_impl.parse_saved_model(str(path)).meta_graphs
    for_use = [graph for graph in graphs if list(graph.meta_info_def.tags) == ["serve"]]
    return (for_use or list(graphs))[0]


def _run(meta: Any) -> Iterator[Any]:
    """Yield the nodes that loading or using a SavedModel may run, all but those that keep its checkpoint."""
    ends = [info.name for entry in meta.signature_def.values() for info in entry.outputs.values()]
    for key in ("saved_model_main_op", "legacy_init_op"):
        ends += meta.collection_def[key].node_list.value if key in meta.collection_def else []
    graph = meta.graph_def
    functions = meta.object_graph_def.concrete_functions
    return with_called(graph.library, upstream(graph, ends), functions)


def _restoring(meta: Any) -> Iterator[Any]:
    """Yield the nodes that fill a SavedModel's variables from its checkpoint."""
    graph = meta.graph_def
    return with_called(graph.library, upstream(graph, [meta.saver_def.restore_op_name]))


def _chosen(signatures: Mapping[str, Any], wanted: str | None, path: Path) -> tuple[str, Any]:
    usable = {
        name: definition
        for name, definition in signatures.items()
        if not name.startswith("__") and definition.inputs and definition.outputs
    }
    if wanted is None and "serving_default" in usable:
        wanted = "serving_default"
    if wanted is None and len(usable) == 1:
        wanted = next(iter(usable))
    if wanted in usable:
        return wanted, usable[wanted]
    if not usable:
        raise ModelError(
            message(
                f"'{path}' has no signature: it does not say what it takes and gives.",
                "Save it together with one.",
                next_step="tf.saved_model.save(model, folder, signatures=model.call.get_concrete_function(spec))",
            )
        )
    listing = ", ".join(sorted(usable))
    raise ModelError(
        message(
            f"'{path}' has no signature '{wanted}'."
            if wanted
            else f"'{path}' has no signature called serving_default.",
            f"Its signatures: {listing}.",
            next_step=f"--signature {min(usable)}",
        )
    )


def _signature(definition: Any, options: Options, path: Path) -> Signature:
    signature = Signature(_specs(definition.inputs), _specs(definition.outputs))
    rankless = [n for n, info in definition.inputs.items() if info.tensor_shape.unknown_rank]
    return shaped(signature, options, path, rankless=rankless)


def _specs(infos: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(name, infos[name]) for name in sorted(infos))


def _spec(name: str, info: Any) -> TensorSpec:
    import tensorflow as tf

    shape = tf.TensorShape(info.tensor_shape)
    dtype = tf.as_dtype(info.dtype)
    sizes = tuple(shape.as_list()) if shape.rank is not None else (None,)
    return TensorSpec(name, sizes, "str" if dtype == tf.string else dtype.name)


def _frozen(path: Path, workspace: Path, meta: Any, definition: Any, options: Options) -> Model:
    """Return the frozen graph of a SavedModel, loaded as TensorFlow 1 did."""
    import tensorflow as tf

    inputs, outputs = definition.inputs, definition.outputs
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        tf.compat.v1.saved_model.load(session, list(meta.meta_info_def.tags), str(path))
        ends = [outputs[name].name.split(":")[0] for name in sorted(outputs)]
        frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
            session, session.graph.as_graph_def(), ends
        )
    file = workspace / "model.pb"
    file.write_bytes(frozen.SerializeToString(deterministic=True))
    signature = _signature(definition, options, path)
    binding = Binding.plain(
        signature,
        [inputs[n].name for n in sorted(inputs)],
        [outputs[n].name for n in sorted(outputs)],
        batch=signature.batch,
    )
    note = "TensorFlow 2 refuses to load this SavedModel; its graph was frozen by TensorFlow 1's loader"
    return Model.at(Form.GRAPH_DEF, file, signature, binding, notes=[note])
