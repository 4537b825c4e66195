"""What a converter said when it refused, cut to the line that tells something."""

from __future__ import annotations

import re

from strop.core.errors import ConversionError

_NOISE = (
    "Traceback",
    "File ",
    "Exception from",
    "Check '",
    "See console",
    "<unknown>",
    "warning:",
)
_TELLING = (
    "error:",
    "unsupported",
    "not supported",
    "no translator",
    "no conversion",
    "failed to legalize",
)
# "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : what it is"
_ONNX_RUNTIME = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def refusal(converter: str, error: BaseException) -> ConversionError:
    """Return the error of ours for a converter's own.

    Args:
        converter: Its name as people know it (``the LiteRT converter``).
        error: What it raised.
    """
    return ConversionError(f"{converter} refused the model: {gist(error)}")


def gist(error: BaseException) -> str:
    """Return the line of a library's error that tells something, cut at 300 characters: what is wrong, not where."""
    # MLIR names where an operation comes from, through all callers, before it says what is wrong with it.
    text = re.sub(r"(<unknown>:0: error: )?loc\(.*\): (error: )?", "error: ", str(error))
    text = _ONNX_RUNTIME.sub("", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    clean = [line for line in lines if not line.startswith(_NOISE)] or lines
    telling = [line for line in clean if any(word in line.lower() for word in _TELLING)]
    return (telling or clean or [type(error).__name__])[0][:300]
