"""What one training is, and how it is carried out in Keras 3 and in legacy Keras alike.

This is imported in environments without strop: it needs NumPy alone, and is given its Keras.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

_CHOICES = 50  # of masks, on the way to the sparsity
_RATE = 1e-3


@dataclass(frozen=True)
class Lesson:
    """A training of one network.

    Attributes:
        model: The file of the network.
        samples: An ``.npz`` with ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
        technique: ``plain``, ``prune`` or ``cluster``.
        epochs: How often all samples are gone through.
        sparsity: The share of weights to drop, reached after half of the steps.
        clusters: Values of a layer.
        batch: Samples a step.
        seed: For their order.
        images: Most samples to train on; None for all.
        is_paced: Whether it waits for a line of input before each epoch, and says how long each took.
    """

    model: str
    samples: str
    technique: str
    epochs: int
    sparsity: float = 0.0
    clusters: int = 16
    batch: int = 64
    seed: int = 0
    images: int | None = None
    is_paced: bool = False

    def to_argument(self) -> str:
        """Return it as an argument of a command."""
        return json.dumps(asdict(self))


class Schedule(NamedTuple):
    """When weights are dropped: a share that grows by a polynomial of degree 3 from step 0 to `end`.

    Attributes:
        target: The share in the end.
        end: The step.
        frequency: Steps from one choice of masks to the next.
    """

    target: float
    end: int
    frequency: int


class Treated(NamedTuple):
    """A network as a tool wants it trained.

    Attributes:
        model: What is fitted.
        callbacks: What is given to `fit`.
        finish: Returns the plain network of what was fitted.
    """

    model: Any
    callbacks: list[Any]
    finish: Callable[[Any], Any]


Treat = Callable[[Any, Lesson, Schedule], Treated]


def carry_out(keras: Any, load: Callable[[str], Any], treat: Treat) -> None:
    """Train as the first argument of the command says, and print what came of it, a line of JSON.

    Args:
        keras: Keras 3, or legacy Keras.
        load: Returns the network in a file.
        treat: Returns it as the tool wants it trained.
    """
    lesson = Lesson(**json.loads(sys.argv[1]))
    with np.load(lesson.samples) as data:
        samples = {name: data[name] for name in data.files}
    x = samples["x_train"][: lesson.images].astype(np.float32)
    y = samples["y_train"][: lesson.images].reshape(-1).astype(np.int64)
    steps = -(-len(x) // lesson.batch) * lesson.epochs
    end = steps // 2
    schedule = Schedule(lesson.sparsity, end, max(end // _CHOICES, 1))
    keras.utils.set_random_seed(lesson.seed)
    treated = treat(load(lesson.model), lesson, schedule)
    rate = keras.optimizers.schedules.CosineDecay(_RATE, steps)
    treated.model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    before, after, seconds = _clock(keras, lesson.is_paced)
    callbacks = [before, *treated.callbacks, after]
    if lesson.is_paced:
        treated.model.fit(
            _untuned(x, y, lesson.batch), epochs=lesson.epochs, verbose=0, callbacks=callbacks
        )
    else:
        treated.model.fit(
            x, y, batch_size=lesson.batch, epochs=lesson.epochs, verbose=0, callbacks=callbacks
        )
    made = treated.finish(treated.model)
    _say(seconds=seconds, **_judged(made, samples))


def _untuned(x: Any, y: Any, batch: int) -> Any:
    """Return samples in a pipeline that tunes nothing.

    With what Keras 3 makes of arrays, TensorFlow 2.21 waits up to a minute at an epoch's end, whatever is trained.
    """
    import tensorflow as tf

    held = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    places = tf.data.Dataset.range(len(x)).shuffle(len(x)).batch(batch)
    options = tf.data.Options()
    options.autotune.enabled = False
    made = places.map(lambda chosen: tuple(tf.gather(array, chosen) for array in held))
    return made.prefetch(2).with_options(options)


def _clock(keras: Any, is_paced: bool) -> tuple[Any, Any, list[float]]:
    """Return callbacks to stand before and after all others, and the seconds of each epoch as they see them."""
    seconds: list[float] = []
    started = [0.0]

    def begin(epoch: int, logs: Any) -> None:
        if is_paced:
            _say(waits=epoch)
            sys.stdin.readline()
        started[0] = time.perf_counter()

    def end(epoch: int, logs: Any) -> None:
        seconds.append(time.perf_counter() - started[0])
        if is_paced:
            _say(took=seconds[-1])

    callback = keras.callbacks.LambdaCallback
    return callback(on_epoch_begin=begin), callback(on_epoch_end=end), seconds


def _judged(model: Any, samples: dict[str, Any]) -> dict[str, Any]:
    scores = model.predict(samples["x_test"].astype(np.float32), batch_size=256, verbose=0)
    right = scores.argmax(-1) == samples["y_test"].reshape(-1)
    kernels = [weights for weights in model.get_weights() if weights.ndim > 1]
    return {
        # As `benchmarks.compression.answers` reads it.
        "right": f"{len(right)}:{np.packbits(right).tobytes().hex()}",
        "zeros": sum(int((kernel == 0).sum()) for kernel in kernels)
        / sum(k.size for k in kernels),
        "values": max(len(np.unique(kernel)) for kernel in kernels),
    }


def _say(**told: Any) -> None:
    print(json.dumps(told), flush=True)
