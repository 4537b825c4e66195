"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from strop.core.errors import ParameterError
from strop.core.evaluation import Goal
from strop.core.signature import Shape
from strop.data.raw import Preparation
from strop.graph.reading import Options

if TYPE_CHECKING:
    from strop.search.request import Request

_MODEL = (
    click.option(
        "--shape",
        "shapes",
        multiple=True,
        help="full shape of an input: NAME=1,128",
    ),
    click.option("--inputs", help="tensor names to take as inputs, with commas"),
    click.option("--outputs", help="tensor names to take as outputs, with commas"),
    click.option("--signature", help="which signature of a SavedModel"),
    click.option(
        "--allow",
        multiple=True,
        help="admit what is refused by default: lambda, file-ops, python-ops, external-data",
    ),
)
_SAMPLES = (
    click.option(
        "--data",
        help="samples: .npz, .npy, a folder of images, a saved dataset, or module:function",
    ),
    click.option("--scale", help="factor for float inputs, e.g. 1/255"),
    click.option(
        "--input-mean", "--input_mean", type=float, help="taken off float inputs, e.g. 128"
    ),
    click.option(
        "--input-std",
        "--input_std",
        type=float,
        help="what float inputs less their mean are divided by, e.g. 128",
    ),
    click.option(
        "--preprocess",
        type=click.Choice(["tf", "torch", "caffe"]),
        help="Keras' preprocess_input mode, for pixels 0..255",
    ),
)
_SEED = click.option(
    "--seed", type=int, default=0, show_default=True, help="for every random choice"
)
metric_option = click.option(
    "--metric",
    help="accuracy, top_k(k=3), auc, mae, rmse, mean_iou or module:function; more is better and a drop absolute, "
    "unless the function's attributes higher_is_better and is_bounded are False",
)
_LIMITS = (
    click.option(
        "--max-drop",
        type=float,
        default=0.01,
        show_default=True,
        help="the most that quality may drop",
    ),
    click.option(
        "--batch",
        "batch_sizes",
        default="1",
        show_default=True,
        help="batch sizes; the first decides",
    ),
    metric_option,
    click.option(
        "--confidence",
        type=float,
        help="hold the limit for the drop's upper bound at this level",
    ),
    click.option("--min-sqnr", type=float, help="least signal-to-quantization-noise ratio in dB"),
)


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say more about a model."""
    return _with(function, _MODEL)


def source_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say more about a model and its samples."""
    return _with(function, (*_SAMPLES, *_MODEL, _SEED))


def limit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what an optimized model is held to."""
    return _with(function, _LIMITS)


def _with(
    function: Callable[..., Any], options: Sequence[Callable[..., Callable[..., Any]]]
) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function


def goal_of(given: dict[str, Any]) -> Goal:
    """Return what an optimized model is held to."""
    return Goal(
        given.get("minimize", "latency"),
        given["max_drop"],
        given["confidence"],
        given["min_sqnr"],
        numbers_of(given["batch_sizes"], "batch size"),
        given["metric"],
    )


def options_of(given: dict[str, Any]) -> Options:
    """Return what was said about the source."""
    return Options(
        dict(map(_shape, given["shapes"])),
        frozenset(given["allow"]),
        _names(given["inputs"]),
        _names(given["outputs"]),
        given["signature"],
    )


def preparation_of(given: dict[str, Any]) -> Preparation:
    """Return what is to be done to inputs."""
    return Preparation(
        _factor(given["scale"]), given["preprocess"], given["input_mean"], given["input_std"]
    )


def request_of(given: dict[str, Any], **more: Any) -> Request:
    """Return what is asked by the options of a source, and by what more a command has."""
    from strop.search.request import Request

    return Request(
        seed=given["seed"],
        options=options_of(given),
        preparation=preparation_of(given),
        **more,
    )


def command_line() -> str:
    """Return the command as it was given, for a report to tell."""
    return shlex.join(["strop", *sys.argv[1:]])


def seconds_of(text: str | None) -> float | None:
    """Return a time such as ``90``, ``90s``, ``5m`` or ``1h`` in seconds.

    Raises:
        ParameterError: If it is none.
    """
    if text is None:
        return None
    factor = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
    number = text[:-1] if factor else text
    try:
        seconds = float(number) * (factor or 1.0)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise ParameterError(f"'{text}' is no time; write 90s, 5m or 1h")
    return seconds


def numbers_of(text: str, what: str) -> tuple[int, ...]:
    """Return whole numbers from ``1,32``.

    Raises:
        ParameterError: If there are others.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ParameterError(f"'{text}' is no {what}; write 1 or 1,32") from None


def _factor(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise ParameterError(f"'{text}' is no factor; write 1/255 or 0.0039") from None


def _shape(text: str) -> tuple[str, Shape]:
    name, _, sizes = text.rpartition("=")
    try:
        shape = tuple(None if s in ("?", "None", "-1") else int(s) for s in sizes.split(","))
    except ValueError:
        shape = ()
    if not name or not shape:
        raise ParameterError(
            f"'{text}' is no shape; write NAME=1,128 (with ? for what stays free)"
        )
    return name, (None, *shape[1:])


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()
