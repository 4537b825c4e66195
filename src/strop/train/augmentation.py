"""Images changed a little at each step, so that a few samples stand for more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from strop.core.errors import ParameterError, message
from strop.core.signature import Signature

KINDS = ("flip", "shift")
_FARTHEST = 8  # the part of an image's height and width by which it is shifted at most
_IMAGE_RANK = 4

Augmentation = Callable[[Sequence[Any]], list[Any]]


def augmentation(kinds: Sequence[str], signature: Signature, *, seed: int = 0) -> Augmentation:
    """Return what changes a batch, in the order of the signature's inputs; what is no image stays as it is.

    Args:
        kinds: ``flip`` mirrors every second image, left to right; ``shift`` moves a batch by up to an eighth of its
            height and width, what comes in being mirrored at the edge.
        signature: The model's; inputs of four axes, channels last, are images.
        seed: For what is drawn.

    Raises:
        ParameterError: If there is no such kind, no image among the inputs, or an output of as many axes, whose targets
            would have to be changed alike.

    References:
        Krizhevsky, Sutskever and Hinton, *ImageNet Classification with Deep Convolutional Neural Networks*, 2012,
        section 4.1.
    """
    places = [
        place for place, spec in enumerate(signature.inputs) if len(spec.shape) == _IMAGE_RANK
    ]
    _refuse(kinds, places, signature)
    draws = keras.random.SeedGenerator(seed)
    changes = [
        change for kind, change in (("flip", _flipped), ("shift", _shifted)) if kind in kinds
    ]

    def augment(batch: Sequence[Any]) -> list[Any]:
        changed = list(batch)
        for place in places:
            for change in changes:
                changed[place] = change(changed[place], draws)
        return changed

    return augment


def _refuse(kinds: Sequence[str], places: Sequence[int], signature: Signature) -> None:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ParameterError(
            f"there is no augmentation {unknown[0]!r}; there are: {', '.join(KINDS)}"
        )
    if not places:
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
