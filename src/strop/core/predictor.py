"""A model opened by an engine: the session beneath, and the Predictor that speaks the original's signature."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, TypeGuard, final

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import SamplesError, message
from strop.core.model import Model
from strop.core.signature import Arrays, Signature


class Session(abc.ABC):
    """A model opened by an engine: the engine's own arrays in, its own arrays out, nothing checked.

    `Predictor` stands before it and speaks the signature. A session serves one thread at a time.
    """

    batch_sizes: tuple[int, ...] | None = None
    """The batch sizes it takes; None for any."""

    @abc.abstractmethod
    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """Return the outputs for `feeds`.

        Args:
            feeds: The form's arrays (after the binding's encoding), in the order of the signature's
                inputs; any memory layout.

        Returns:
            The form's arrays (before decoding), in the order of the signature's outputs. They may be
            views that the next call overwrites.

        Raises:
            ExecutionError: If the engine fails.
        """

    @abc.abstractmethod
    def clone(self) -> Session:
        """Return another session of the same model, for another thread; weights shared if it can be."""

    # Most sessions keep no state and hold nothing, so doing nothing is the right answer of these two.
    def reset(self) -> None:  # noqa: B027
        """Forget the state that calls leave behind, where the model keeps any."""

    def close(self) -> None:  # noqa: B027
        """Give back what the engine holds (threads, memory)."""


@final
class Predictor:
    """A model opened by a runtime: ``predictor(inputs) -> outputs``, under the original's names.

    Inputs are an array (one input), a sequence in order, or a mapping by name; outputs an array (one
    output) or a mapping by name. NumPy at the boundary, whatever runs beneath. One thread at a time;
    `clone` for more.
    """

    def __init__(self, model: Model, session: Session) -> None:
        self._session = session
        self._binding = model.binding
        self.signature: Signature = model.signature
        self.batch_sizes = session.batch_sizes
        self._model = model
        self._dtypes = [np.dtype(spec.dtype) for spec in self.signature.inputs]
        # What was found to fit is not looked at again as long as the calls stay alike.
        self._fitting: list[tuple[tuple[int, ...], np.dtype[Any]]] = []
        pairs_in = zip(model.binding.inputs, self.signature.inputs, strict=True)
        self._encoders = [None if b.is_plain(s.dtype) else b.encode for b, s in pairs_in]
        pairs_out = zip(model.binding.outputs, self.signature.outputs, strict=True)
        self._decoders = [None if b.is_plain(s.dtype) else b.decode for b, s in pairs_out]
        self._encodes = any(encode is not None for encode in self._encoders)
        self._decodes = any(decode is not None for decode in self._decoders)
        self._output_dtypes = [spec.dtype for spec in self.signature.outputs]
        self._output_names = self.signature.output_names

    def __call__(self, inputs: object, *, copy: bool = True) -> NDArray[Any] | Arrays:
        """Return the outputs for `inputs`, any number of samples; see `run_all`.

        Args:
            inputs: An array, a sequence of arrays, or a mapping by name.
            copy: Whether the outputs are the caller's own; with False they may be views that the next
                call overwrites, for those who have used them up by then.

        Raises:
            SamplesError: If names, shapes or dtypes don't fit.
            ExecutionError: If the engine fails.
        """
        outputs = self.run_all(inputs, copy=copy)
        if len(outputs) == 1:
            return outputs[0]
        return dict(zip(self._output_names, outputs, strict=True))

    def run_all(self, inputs: object, *, copy: bool = True) -> list[NDArray[Any]]:
        """Return the outputs in the signature's order, for any number of samples.

        Where the model was made for batches of one size, it is called as often as that takes; the last batch is
        filled up with its last sample.
        """
        if self.batch_sizes is None or self._is_as_before(inputs):
            return self.run(inputs, copy=copy)
        named = self.signature.arrange(inputs)
        arrays = list(named.values())
        count, size = arrays[0].shape[0] if arrays[0].ndim else 1, max(self.batch_sizes)
        if count in self.batch_sizes or not count:
            return self._answers(self._seen(arrays), copy=copy)
        self.signature.check(named)
        parts = []
        for start in range(0, count, size):
            part = [filled(array[start : start + size], size) for array in arrays]
            found = self._answers(self._seen(part), copy=True)
            parts.append([output[: count - start] for output in found])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def run(self, inputs: object, *, copy: bool = True) -> list[NDArray[Any]]:
        """Return the outputs of one call of the engine, in the signature's order.

        Raises:
            SamplesError: As `__call__`, and if the batch size is not one it takes.
        """
        # Every tenth of a microsecond counts here: small networks answer within some ten of them.
        if self._is_as_before(inputs):
            return self._answers([inputs], copy=copy)
        return self._answers(self._seen(list(self.signature.arrange(inputs).values())), copy=copy)

    def _answers(self, arrays: list[NDArray[Any]], *, copy: bool) -> list[NDArray[Any]]:
        if self._encodes:
            arrays = [
                array if encode is None else encode(array)
                for array, encode in zip(arrays, self._encoders, strict=True)
            ]
        results = self._session.run(arrays)
        if self._decodes:
            return self._decoded(results, copy=copy)
        if not copy:
            return list(results)
        return [results[0].copy()] if len(results) == 1 else [r.copy() for r in results]

    def _is_as_before(self, inputs: object) -> TypeGuard[NDArray[Any]]:
        """Say whether `inputs` is one array like that of the last call, so that it needs no other look."""
        return type(inputs) is np.ndarray and [(inputs.shape, inputs.dtype)] == self._fitting

    def _seen(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return inputs in the engine's dtypes, looked at unless the last ones were alike."""
        kinds = [(array.shape, array.dtype) for array in arrays]
        if kinds == self._fitting:
            return arrays
        fitted = self._fitted(arrays)
        if kinds == [(array.shape, array.dtype) for array in fitted]:
            self._fitting = kinds
        return fitted

    def _decoded(self, results: Sequence[NDArray[Any]], *, copy: bool) -> list[NDArray[Any]]:
        outputs = []
        for result, decode, dtype in zip(
            results, self._decoders, self._output_dtypes, strict=True
        ):
            array = result if decode is None else decode(result, dtype)
            outputs.append(array.copy() if copy and array is result else array)
        return outputs

    def _fitted(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return `arrays` cast to the signature's dtypes, or say what does not fit."""
        self.signature.check(dict(zip(self.signature.input_names, arrays, strict=True)))
        count = len(arrays[0])
        if self.batch_sizes is not None and count not in self.batch_sizes:
            raise SamplesError(
                message(
                    f"a batch of {count} was given.",
                    f"This model was made for batches of {', '.join(map(str, self.batch_sizes))}.",
                )
            )
        return [
            array.astype(dtype, copy=False)
            for array, dtype in zip(arrays, self._dtypes, strict=True)
        ]

    def batch_for(self, wanted: int) -> int:
        """Return the size of batch to ask with: `wanted`, or the one that the model was made for."""
        return max(self.batch_sizes) if self.batch_sizes else wanted

    def clone(self) -> Predictor:
        """Return another predictor of the same model, for another thread."""
        return Predictor(self._model, self._session.clone())

    def reset(self) -> None:
        """Forget the state that calls leave behind, where the model keeps any."""
        self._session.reset()

    def close(self) -> None:
        """Give back what the engine holds. Closing twice is harmless."""
        self._session.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def filled(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return `array` with its last sample repeated up to `size`."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array
