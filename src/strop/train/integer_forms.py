"""What has an integer form in engines, and why other layers stay in float.

Engines' kernels are followed: which layers multiply and add, which give codes as they take them, which functions are
part of the kernel before them, and which give their results on one grid alone.
"""

from __future__ import annotations

from typing import Any

from strop.graph.keras_calls import Call

LINEAR = {"Dense", "BaseConv", "BaseConvTranspose", "BaseDepthwiseConv"}
SEPARABLE = {"SeparableConv1D", "SeparableConv2D"}
NORMALIZATION = "BatchNormalization"
SUMS = {"Add", "Multiply", "Subtract"}
QUOTIENTS = {"Divide", "TrueDivide"}
JOINS = {"Concatenate", "Maximum", "Minimum"}
MEANS = {"GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D"}
# What gives means of neighbours, which lie between codes.
MIXING = {"AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "UpSampling2D"}
# What gives codes as it takes them, or does nothing in inference.
PASSING = {
    "ActivityRegularization", "AlphaDropout", "Cropping1D", "Cropping2D", "Cropping3D", "Dropout", "ExpandDims",
    "Flatten", "GaussianDropout", "GaussianNoise", "GetItem", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
    "GlobalMaxPooling3D", "Identity", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Permute", "RepeatVector",
    "Reshape", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "Squeeze", "Transpose", "UpSampling1D",
    "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
}  # fmt: skip
# Functions that are part of the kernel before them, and functions that have integer kernels of their own.
WITHIN_KERNELS = {"relu", "relu6"}
ALONE = {"elu", "exponential", "gelu", "hard_silu", "leaky_relu", "prelu"}
# x·g(x), as engines compute it, where g is one function or several.
GATES = {"mish": ("softplus", "tanh"), "silu": ("sigmoid",)}
# Functions whose results integer kernels give on one grid alone: the ends of its range, the upper one less a step.
FIXED = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0)}
BYTE = 8
# Layers and operations that are functions.
_FUNCTIONS = {
    "ELU": "elu", "Elu": "elu", "Exp": "exponential", "Gelu": "gelu", "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu", "LeakyReLU": "leaky_relu", "LeakyRelu": "leaky_relu", "PReLU": "prelu", "Relu": "relu",
    "Relu6": "relu6", "Sigmoid": "sigmoid", "Silu": "silu", "Softmax": "softmax", "Tanh": "tanh",
}  # fmt: skip
_RECURRENT = (
    "recurrent layers stay in float: what rounding does to a state adds up from step to step"
)
_STATISTICS = "its mean and variance need more than eight bits"
_ATTENTION = "the products within attention stay in float"
_REASONS = {
    "Attention": _ATTENTION, "AdditiveAttention": _ATTENTION, "GroupedQueryAttention": _ATTENTION,
    "MultiHeadAttention": _ATTENTION, "Bidirectional": _RECURRENT, "RNN": _RECURRENT,
    "GroupNormalization": _STATISTICS, "LayerNormalization": _STATISTICS, "RMSNormalization": _STATISTICS,
    NORMALIZATION: "what it is given is in float",
    "Embedding": "a table that rows are looked up in: nothing is computed with it",
}  # fmt: skip


def is_of_channels(call: Call) -> bool:
    """Say whether a normalization is one of the last axis, of vectors, sequences or images."""
    done, rank = call.operation, len(call.results[0].shape)
    return 2 <= rank <= 4 and done.axis % rank == rank - 1 and not done.renorm


def untreatable(operation: Any) -> str | None:
    """Return why a layer is to be left as it is, whatever it computes; None where it may be treated."""
    if getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False):
        return "its kernel is quantized already, or adapted by LoRA"
    return None


def reason_of(call: Call) -> str:
    """Return why what a call computes has no integer form."""
    kinds = [kind.__name__ for kind in type(call.operation).__mro__]
    if call.computes_as == NORMALIZATION and not is_of_channels(call):
        return "only of the last axis of vectors, sequences and images is there an integer form"
    known = next((_REASONS[kind] for kind in kinds if kind in _REASONS), None)
    return known or f"there is no integer form of '{kinds[0]}' here"


def function_of(call: Call) -> str:
    """Return the name of the function that a layer or an operation is; empty where it is none."""
    operation = call.operation
    if call.computes_as == "Activation":
        return function_name(operation.activation)
    if call.computes_as == "Softmax" and getattr(operation, "axis", -1) != -1:
        return "softmax along another axis"
    if call.computes_as != "ReLU":
        return _FUNCTIONS.get(call.computes_as, "")
    if operation.threshold or operation.max_value not in (None, 6):
        return "relu with a threshold or a largest value"
    if operation.negative_slope:
        return "leaky_relu" if operation.max_value is None else "leaky relu with a largest value"
    return "relu" if operation.max_value is None else "relu6"


def activation_of(layer: Any) -> Any:
    """Return the function that a layer ends in; None where it has none."""
    return getattr(layer, "activation", None)


def function_name(function: Any) -> str:
    """Return the name of one of Keras' functions; another's is no name for what it computes."""
    if function is None:
        return "linear"
    name = getattr(function, "__name__", type(function).__name__)
    return name if (function.__module__ or "").startswith("keras.") else f"{name} of your own"


def is_within_kernels(function: Any) -> bool:
    """Say whether engines compute a function within the kernel before it."""
    return function_name(function) in ("linear", *WITHIN_KERNELS)
