"""Images changed a little at each step, so that a few samples stand for more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from strop.core.errors import ParameterError, message
from strop.core.signature import Signature
from strop.graph.keras_layers import plain_layers

FLIP, SHIFT, MIX, CUT = KINDS = ("flip", "shift", "mix", "cut")
_FARTHEST = 8  # the part of an image's height and width by which it is shifted at most
_IMAGE_RANK = 4


@dataclass(frozen=True)
class Changed:
    """A batch that was changed.

    Attributes:
        inputs: In the signature's order.
        own: The share that each sample has in what it became, a number for the whole batch; the rest is that of its
            counterpart in the batch read backwards. None where nothing was mixed.
    """

    inputs: list[Any]
    own: Any = None


Augmentation = Callable[[Sequence[Any]], Changed]


def augmentation(
    kinds: Sequence[str], signature: Signature, *, model: Any = None, seed: int = 0
) -> Augmentation:
    """Return what changes a batch, in the order of the signature's inputs.

    Args:
        kinds: ``flip`` mirrors every second image, left to right; ``shift`` moves a batch by up to an eighth of its
            height and width, what comes in being mirrored at the edge; what is no image stays as it is. ``mix`` blends
            all inputs of each sample with those of another one, in a share that is drawn for the batch from 0 to 1; ``cut``
            has a rectangle of each image come from another one, whose share is drawn likewise. With both it is one or
            the other, batch by batch.
        signature: The model's; inputs of four axes, channels last, are images.
        model: The `keras.Model` that is given the batches, which may look numbers up; None for one that looks up none.
        seed: For what is drawn.

    Raises:
        ParameterError: If there is no such kind, no image among the inputs (for ``cut``: anything else), an output of as
            many axes, whose targets would have to be changed alike, or what can't be mixed: whole numbers that are no
            image among the inputs, or numbers that the model looks up.

    References:
        Krizhevsky, Sutskever and Hinton, *ImageNet Classification with Deep Convolutional Neural Networks*, 2012,
        section 4.1 (``flip``, ``shift``). Zhang, Cissé, Dauphin and Lopez-Paz, *mixup: Beyond Empirical Risk
        Minimization*, ICLR 2018 (arXiv:1710.09412); with a teacher that answers to the mixture: Beyer et al.,
        *Knowledge Distillation: A Good Teacher Is Patient and Consistent*, CVPR 2022 (arXiv:2106.05237). Yun et al.,
        *CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features*, ICCV 2019
        (arXiv:1905.04899) (``cut``).
    """
    _refuse(kinds, signature, model)
    draws = keras.random.SeedGenerator(seed)
    places = _images(signature)
    changes = [change for kind, change in ((FLIP, _flipped), (SHIFT, _shifted)) if kind in kinds]

    def augment(batch: Sequence[Any]) -> Changed:
        changed = list(batch)
        for place in places:
            for change in changes:
                changed[place] = change(changed[place], draws)
        blends = [
            blend(changed, draws) for kind, blend in ((MIX, _mixed), (CUT, _cut)) if kind in kinds
        ]
        if not blends:
            return Changed(changed)
        one, *other = blends
        return _either(one, *other, by=keras.random.uniform((), seed=draws)) if other else one

    return augment


def _images(signature: Signature) -> list[int]:
    """Return the places of the inputs that are images."""
    shapes = [spec.shape for spec in signature.inputs]
    return [place for place, shape in enumerate(shapes) if len(shape) == _IMAGE_RANK]


def _refuse(kinds: Sequence[str], signature: Signature, model: Any) -> None:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ParameterError(
            f"there is no augmentation {unknown[0]!r}; there are: {', '.join(KINDS)}"
        )
    if MIX in kinds:
        _refuse_to_mix(signature, model)
    if CUT in kinds and len(_images(signature)) < len(signature.inputs):
        raise ParameterError(
            message(
                f"'{CUT}' takes rectangles of images, and not all inputs are images (four axes, channels last).",
                f"Take '{MIX}', which blends inputs of any kind.",
            )
        )
    if not {FLIP, SHIFT, CUT} & set(kinds):
        return
    if not _images(signature):
        raise ParameterError(
            "augmentation changes images (four axes, channels last); no input is one."
        )
    alike = [spec.name for spec in signature.outputs if len(spec.shape) >= _IMAGE_RANK]
    if alike:
        raise ParameterError(
            message(
                f"the output '{alike[0]}' is an image itself, and its targets would have to be changed like the inputs.",
                "Do without augmentation, or give samples that were changed before.",
            )
        )


def _refuse_to_mix(signature: Signature, model: Any) -> None:
    whole = [
        spec for spec in signature.inputs
        if not _has_fractions(spec.dtype) and len(spec.shape) != _IMAGE_RANK
    ]  # fmt: skip
    if whole:
        raise ParameterError(
            message(
                f"the input '{whole[0].name}' is {whole[0].dtype}, and no image: what lies between two samples is no "
                "sample there.",
                f"Do without '{MIX}'.",
            )
        )
    # Keras gives such inputs as float32 where nobody says what they are.
    layers = () if model is None else plain_layers(model)
    looked_up = [layer for layer in layers if isinstance(layer, keras.layers.Embedding)]
    if looked_up:
        raise ParameterError(
            message(
                f"the layer '{looked_up[0].name}' looks up numbers, and what lies between two of them is another word.",
                f"Do without '{MIX}'.",
            )
        )


def _has_fractions(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def _mixed(batch: Sequence[Any], draws: Any) -> Changed:
    """Return samples blended with those of the batch read backwards."""
    own = keras.random.uniform((), seed=draws)
    return Changed([_blended(tensor, own) for tensor in batch], own)


def _blended(tensor: Any, own: Any) -> Any:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if _has_fractions(dtype):
        own = ops.cast(own, dtype)
        return own * tensor + (1 - own) * ops.flip(tensor, axis=0)
    exact = ops.cast(tensor, "float32")  # pixels as whole numbers
    return ops.cast(ops.round(own * exact + (1 - own) * ops.flip(exact, axis=0)), dtype)


def _cut(batch: Sequence[Any], draws: Any) -> Changed:
    """Return images with a rectangle, at one place in the whole batch, of those of the batch read backwards."""
    side = ops.sqrt(keras.random.uniform((), seed=draws))  # so that its area is spread evenly
    middle = keras.random.uniform((2,), seed=draws)
    changed, own = [], None
    for images in batch:
        down, across = (
            ops.abs((ops.arange(size, dtype="float32") + 0.5) / size - middle[axis]) < side / 2
            for axis, size in enumerate(images.shape[1:3])
        )
        inside = ops.logical_and(down[:, None], across[None, :])
        changed.append(ops.where(inside[None, :, :, None], ops.flip(images, axis=0), images))
        own = 1 - ops.mean(ops.cast(inside, "float32")) if own is None else own
    return Changed(changed, own)


def _either(one: Changed, other: Changed, *, by: Any) -> Changed:
    pairs = zip([*one.inputs, one.own], [*other.inputs, other.own], strict=True)
    *inputs, own = (ops.where(by < 0.5, ours, theirs) for ours, theirs in pairs)
    return Changed(inputs, own)


def _flipped(images: Any, draws: Any) -> Any:
    """Return images of which every second is mirrored."""
    chance = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), seed=draws)
    return ops.where(chance < 0.5, ops.flip(images, axis=2), images)


def _shifted(images: Any, draws: Any) -> Any:
    """Return images moved, all of a batch alike, which costs next to nothing."""
    height, width = images.shape[1:3]
    most = [min(max(size // _FARTHEST, 1), size - 1) for size in (height, width)]
    wider = ops.pad(images, [[0, 0], [most[0]] * 2, [most[1]] * 2, [0, 0]], mode="reflect")
    for axis, size, far in ((1, height, most[0]), (2, width, most[1])):
        start = keras.random.randint((), 0, 2 * far + 1, seed=draws)
        wider = ops.take(wider, start + ops.arange(size, dtype=start.dtype), axis=axis)
    return wider
