"""What kinds of numbers the layers with weights compute with, as the engines themselves tell."""

from collections import Counter
from pathlib import Path

from strop.core.model import Form, Model

_LITERT = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}
_OPENVINO = {"Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul"}


def counted(model: Model) -> dict[str, int]:
    """Return how many convolutions and products compute with which type of number; empty for other forms."""
    if model.form is Form.LITERT:
        return dict(_in_litert(model.path))
    if model.form is Form.OPENVINO:
        return dict(_in_openvino(model.path))
    return {}


def _in_litert(path: Path) -> Counter[str]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without delegates, which would stand for the operations.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    types = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    return Counter(
        types[operation["inputs"][0]].__name__
        for operation in interpreter._get_ops_details()
        if operation["op_name"] in _LITERT
    )


def _in_openvino(path: Path) -> Counter[str]:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return Counter(
        info["runtimePrecision"].astype(str)
        for info in told
        if info["layerType"].astype(str) in _OPENVINO
    )
