"""What a Predictor takes and gives, with an engine that needs no file."""

import numpy as np
import pytest

from strop.core.errors import SamplesError
from strop.core.model import Binding, Form, Model, TensorBinding
from strop.core.predictor import Predictor, Session
from strop.core.signature import Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("wide", (None, 3), "float32"), TensorSpec("tokens", (None, None), "int32")),
    (TensorSpec("sum", (None,), "float32"),),
)


class Adding(Session):
    """Add up each sample's numbers; keeps what it was given last."""

    batch_sizes = None

    def run(self, feeds):
        self.given = feeds
        return [sum(feed.astype("float32").sum(1) for feed in feeds)]

    def clone(self):
        return Adding()

    def close(self):
        pass


@pytest.fixture
def session():
    return Adding()


@pytest.fixture
def predictor(session, tmp_path):
    bound = [TensorBinding(spec.name, i, spec.dtype) for i, spec in enumerate(SIGNATURE.inputs)]
    binding = Binding(tuple(bound), (TensorBinding("sum", 0, "float32"),), None)
    (tmp_path / "model.onnx").write_bytes(b"-")
    return Predictor(Model.at(Form.ONNX, tmp_path / "model.onnx", SIGNATURE, binding), session)


def arrays(count, steps=4):
    return {"wide": np.ones((count, 3), "float32"), "tokens": np.ones((count, steps), "int32")}


def test_calls_of_changing_sizes_are_each_looked_at(predictor):
    for count, steps in ((2, 4), (2, 4), (3, 9), (1, 1)):
        assert predictor(arrays(count, steps)).tolist() == [3 + steps] * count


def test_inputs_of_different_lengths_are_refused_also_after_calls_that_fitted(predictor):
    predictor(arrays(2))
    with pytest.raises(SamplesError, match="different lengths"):
        predictor({**arrays(2), "tokens": np.ones((5, 4), "int32")})


def test_a_number_without_dimensions_is_refused(predictor):
    with pytest.raises(SamplesError, match="'wide' has shape"):
        predictor({**arrays(2), "wide": np.float32(3)})


def test_wider_integers_are_cast_where_they_fit_and_refused_where_not(predictor, session):
    fitting = {**arrays(2), "tokens": np.full((2, 4), 2, "int64")}
    predictor(fitting)
    assert session.given[1].dtype == np.int32

    with pytest.raises(SamplesError, match="'tokens' has dtype int64"):
        predictor({**arrays(2), "tokens": np.full((2, 4), 2**40)})
    with pytest.raises(SamplesError, match="'tokens' has dtype float64"):
        predictor({**arrays(2), "tokens": np.full((2, 4), 2.0)})
    predictor(fitting)


def test_a_model_of_one_batch_size_answers_any_number_of_samples(predictor, session):
    predictor.batch_sizes = (4,)
    given = arrays(10)
    given["wide"] *= np.arange(10, dtype="float32")[:, None]
    assert predictor(given).tolist() == [3.0 * i + 4 for i in range(10)]
    assert [len(feed) for feed in session.given] == [4, 4]


def test_one_call_of_the_engine_takes_the_batch_that_it_was_made_for(predictor):
    predictor.batch_sizes = (4,)
    with pytest.raises(SamplesError, match="made for batches of 4"):
        predictor.run(arrays(10))
