"""Samples as batches for `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def batches(
    part: tuple[Sequence[Any], Mapping[str, Any]], size: int, *, shuffled: bool = False
) -> Any:
    """Return inputs and what is wanted of them as `fit` takes them, whatever is beneath Keras: a `tf.data.Dataset`.

    It tunes nothing while it runs. What Keras makes of arrays does: a thread looks up at growing intervals of up to a
    minute, and TensorFlow 2.21 waits for the next one wherever an iterator ends, which is after each epoch and each
    validation. Epochs of ResNet-8 that compute for 5 s took up to a minute so.

    Args:
        part: Inputs in the signature's order, and arrays by name, of as many samples.
        size: Samples a batch; the last may have fewer.
        shuffled: Whether samples come in another order each epoch, which `keras.utils.set_random_seed` decides.
    """
    import tensorflow as tf

    inputs, wanted = part
    held = tf.nest.map_structure(tf.convert_to_tensor, (tuple(inputs), dict(wanted)))
    count = len(inputs[0])
    places = tf.data.Dataset.range(count)
    if shuffled:
        places = places.shuffle(count)
    made = places.batch(size).map(
        lambda chosen: tf.nest.map_structure(lambda array: tf.gather(array, chosen), held)
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    return made.prefetch(2).with_options(options)
