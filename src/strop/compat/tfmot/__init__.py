"""The names of TensorFlow Model Optimization for Keras 3, over strop's own pruning, clustering and quantization.

::

    import strop.compat.tfmot as tfmot

Functions take and give `keras.Model`s, which stay what they are: nothing is wrapped around their layers. What weights have
to keep is written down in the layers' constraints, and so saved and loaded with the model. A model that is given is copied
and not changed; a layer that is given comes back as it is, marked.

Arguments that can't be are refused with `ValueError`, as code that is moved here expects it.

References:
    TensorFlow Model Optimization Toolkit 0.8, API documentation: names, arguments and defaults.
"""

from strop.compat.tfmot import clustering, experimental, quantization, sparsity

__all__ = ["clustering", "experimental", "quantization", "sparsity"]
