"""A training with tensorflow-model-optimization on legacy Keras: ``python -m benchmarks.peers.with_tfmot LESSON``.

It runs in an environment of its own; see `benchmarks.peers.environments`.
"""

import os
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

from benchmarks.peers.lesson import Lesson, Schedule, Treated, carry_out


def treat(model: Any, lesson: Lesson, schedule: Schedule) -> Treated:
    """Return the network in the tool's wrappers, with its callback, and what takes the wrappers off."""
    from tensorflow_model_optimization.clustering import keras as clustering
    from tensorflow_model_optimization.sparsity import keras as sparsity

    if lesson.technique == "prune":
        decay = sparsity.PolynomialDecay(
            0.0, schedule.target, begin_step=0, end_step=schedule.end, frequency=schedule.frequency
        )
        wrapped = sparsity.prune_low_magnitude(model, pruning_schedule=decay)
        return Treated(wrapped, [sparsity.UpdatePruningStep()], sparsity.strip_pruning)
    if lesson.technique == "cluster":
        wrapped = clustering.cluster_weights(
            model,
            number_of_clusters=lesson.clusters,
            cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
        )
        return Treated(wrapped, [], clustering.strip_clustering)
    return Treated(model, [], lambda fitted: fitted)


def main() -> None:
    """Carry out the lesson."""
    import tf_keras

    carry_out(tf_keras, lambda path: tf_keras.models.load_model(path, compile=False), treat)


if __name__ == "__main__":
    main()
