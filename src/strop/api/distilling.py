"""`distill`: a smaller Keras model that learned from a larger one, and what that cost in quality."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strop.api.compressing import Compressed, compress, step_of
from strop.api.working import refuse_output
from strop.core.errors import ModelError, message
from strop.search.events import Listener, ignore
from strop.search.request import Request

_WORD = "distilled"


def distill(
    model: Any,
    samples: Any = None,
    output: str | Path | None = None,
    *,
    student: Any = None,
    request: Request | None = None,
    listen: Listener = ignore,
    **settings: Any,
) -> Compressed:
    """Have a smaller Keras model learn what a model answers, from its data and, where there are any, its targets.

    Args:
        model: A ``.keras`` or ``.h5`` file, or a `keras.Model`, which stays as it is: the teacher.
        samples: As for `optimize`; its train split is what the student is taught on.
        output: The ``.keras`` file to write; ``distilled.keras`` in the working folder where None.
        student: A ``.keras`` file, or a `keras.Model`, of the same inputs and outputs; it stays as it is, and a copy is
            taught. None to have one derived from the model.
        request: What else is said; see `Request`. Its goal's limits are what the result is held to.
        listen: Told what happens.
        **settings: The parameters of the pass ``distill.student``, such as ``macs=0.5`` or ``method="attention"``.

    Raises:
        ModelError: If it is no Keras model, no smaller one can be derived, or the student has another signature.
        SamplesError: If there are no samples to teach it on.
        ParameterError: If a setting is unknown or not allowed.
        OutputError: If the output can't be written, or is the model itself.
        TrialError: If training fails.
    """
    target = Path(output or f"{_WORD}.keras")
    refuse_output(target, student, example="--output taught.keras")
    with _student_file(student) as file:
        named = {"student": file} if file else {}
        steps = [step_of("distill.student", {**settings, **named})]
        return compress(steps, model, samples, target, word=_WORD, request=request, listen=listen)


@contextlib.contextmanager
def _student_file(student: Any) -> Iterator[str]:
    """Give the file that a student is in; nothing where there is no student."""
    if student is None or student == "":
        yield ""
    elif isinstance(student, str | Path):
        path = Path(student).resolve()  # workers need not stand where the user does
        if not path.is_file():
            raise ModelError(
                message(
                    f"there is no student at '{student}'.",
                    "Give a .keras file or a keras.Model, or none to have a student derived.",
                )
            )
        yield str(path)
    else:
        from strop.graph.keras_files import save

        with tempfile.TemporaryDirectory(prefix="strop-") as folder:
            path, is_keras = save(student, Path(folder))
            if not is_keras:
                raise ModelError(
                    message(
                        f"the student '{student.name}' can't be saved so that it loads again anywhere.",
                        "It has layers or functions of your own; of such a model strop.train.distillation.distill "
                        "teaches the object itself.",
                    )
                )
            yield str(path)
