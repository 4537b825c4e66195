"""Trained models on disk and what is taught of them; models that compute in integers, and what LiteRT does with them."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from strop.core.model import Binding, Form, Model
from strop.core.samples import Samples
from strop.graph.coded_weights import keep_codes
from strop.graph.frozen import freeze
from strop.graph.keras_files import opened
from strop.graph.keras_models import by_name, signature_of
from strop.graph.quiet import quiet
from strop.passes.convert.litert import ConvertToLiteRT
from strop.passes.quantize.aware import QuantizeAware
from strop.train.quantization import Quantization, quantization_aware
from strop.train.ranges import FakeQuantize
from tests.passes.convert.conftest import PlainContext, Teaching, Workshop


def drawn(shape, count=64, *, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


@dataclass
class Source:
    """A trained model's file, in the workshop where it was made, with what it was trained on.

    Attributes:
        workshop: Where it lies, and where more is made.
        model: The file.
        data: Inputs, and the class of each.
    """

    workshop: Workshop
    model: Model
    data: tuple

    @classmethod
    def of(cls, live, data, folder, *, rate, epochs):
        """Train `live`, which gives probabilities, with Adam, and write it down."""
        live.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        live.fit(*data, epochs=epochs, verbose=0)
        workshop = Workshop(folder)
        with quiet():
            return cls(workshop, workshop.keras(live), data)

    def samples(self, count=None, *, x=None, labelled=True):
        """What it was trained on, or the first of it; with other inputs, or without labels."""
        signature = self.model.signature
        given, y = (array[:count] for array in self.data)
        inputs = {signature.input_names[0]: given if x is None else x}
        return Samples(inputs, {signature.output_names[0]: y} if labelled else {})

    def taught(self, technique, samples):
        """What a pass makes of it that has samples to learn from, or None."""
        context = Teaching(self.workshop.new(), original=self.model, samples=samples)
        with quiet():
            return technique.apply(self.model, context)

    def share_right(self, made):
        """The share of what it was trained on that another model is right about."""
        x, y = self.data
        return float(np.mean(np.argmax(np.array(opened(made)(x)), -1) == y))


@dataclass
class Taught:
    """A finished model, and the frozen graph of it as the pass writes it."""

    finished: object
    graph: Model
    left: dict

    @classmethod
    def of(cls, live, folder, **settings):
        """Calibrate `live` on samples, freeze it."""
        signature = signature_of(live)
        shape = live.input_shape[1:]
        aware = quantization_aware(live, Quantization(**settings))
        aware.calibrate(Samples({signature.input_names[0]: drawn(shape, 256, seed=1)}), signature)
        finished = aware.finished()
        frozen = freeze(lambda *given: by_name(finished, given, signature), signature)
        keep_codes(frozen.definition)
        path = Path(folder) / "taught.pb"
        path.write_bytes(frozen.definition.SerializeToString(deterministic=True))
        binding = Binding.plain(signature, frozen.inputs, frozen.outputs)
        source = Model.at(Form.KERAS, path, signature)
        left = dict(aware.left_in_float)
        graph = source.derive(QuantizeAware(), Form.GRAPH_DEF, path, binding, left_in_float=left)
        return cls(finished, graph, left)

    def answers(self, x):
        return np.asarray(self.finished(x, training=False))

    @property
    def step(self):
        """The distance between codes of the output."""
        *_, last = (la for la in self.finished.layers if isinstance(la, FakeQuantize))
        low, high = last.fixed
        return (high - low) / (2**last.bits - 1)

    def litert(self, folder):
        return Flatbuffer(ConvertToLiteRT().apply(self.graph, PlainContext(Path(folder))))


class Flatbuffer:
    """A `.tflite` file as its engine sees it, kernel by kernel."""

    def __init__(self, model):
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.model = model
        self._interpreter = Interpreter(str(model.path), experimental_op_resolver_type=plain)
        details = self._interpreter.get_tensor_details()
        types = {t["index"]: np.dtype(t["dtype"]).name for t in details}
        self.operations = [
            (op["op_name"], {types[i] for i in (*op["inputs"], *op["outputs"]) if i >= 0})
            for op in self._interpreter._get_ops_details()
        ]
        self._details = details

    @property
    def in_float(self):
        """The operations that read or give real numbers."""
        return [name for name, types in self.operations if "float32" in types]

    def kernels(self):
        """The weights of layers, by their tensors' names, as they lie in the file."""
        places = {
            int(op["inputs"][1])
            for op in self._interpreter._get_ops_details()
            if op["op_name"]
            in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
        }
        return {
            t["name"]: self._interpreter.get_tensor(t["index"])
            for t in self._details
            if t["index"] in places
        }

    def answers(self, x):
        (given,) = self._interpreter.get_input_details()
        (result,) = self._interpreter.get_output_details()
        self._interpreter.resize_tensor_input(given["index"], x.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(given["index"], x)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(result["index"])
