"""The list: every way of running a model by hand that strop is measured against."""

from benchmarks.by_hand import with_litert, with_onnxruntime, with_openvino, with_tensorflow
from benchmarks.by_hand.way import Way

WAYS: tuple[Way, ...] = (
    *with_tensorflow.WAYS,
    *with_litert.WAYS,
    *with_onnxruntime.WAYS,
    *with_openvino.WAYS,
)


def way_named(name: str) -> Way:
    """Return the way of that name.

    Raises:
        KeyError: If there is none.
    """
    return {way.name: way for way in WAYS}[name]
