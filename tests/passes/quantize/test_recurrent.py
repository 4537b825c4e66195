"""What of an embedding under a recurrent layer each quantizer leaves in float is listed, in loops too."""

import pytest

from strop.core import registry
from strop.core.model import Form
from strop.graph.litert_quantizing import layers_of
from strop.graph.quiet import quiet
from tests.passes.convert.conftest import Workshop

TABLE = "a table that rows are looked up in, which the quantizer leaves"
LOOP = "a loop, which the quantizer does not look into"


def named(name, **settings):
    return registry.passes.get(name)(**settings)


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """A small recurrent network in the engines' forms."""
    import keras
    from keras import layers

    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 8, embeddings_initializer="normal", name="words")(tokens)
    model = keras.Model(tokens, layers.Dense(3)(layers.LSTM(8, name="lstm")(x)))
    workshop = Workshop(tmp_path_factory.mktemp("recurrent"))
    with quiet():
        frozen = workshop.apply(workshop.keras(model), named("convert.graph_def", batch=1))
        made = {
            form: workshop.apply(frozen, named(f"convert.{form}"))
            for form in (Form.LITERT, Form.ONNX, Form.OPENVINO)
        }
    return workshop, made


def left(forms, name, form, **settings):
    workshop, made = forms
    with quiet():
        found = workshop.apply(made[form], named(name, **settings))
    # The names are the converters' own; which layer each belongs to can be told from them.
    return {
        next(layer for layer in ("words", "lstm") if layer in operation): reason
        for operation, reason in found.facts["left_in_float"].items()
    }


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("quantize.litert_dynamic", {"smallest": 0}),
        ("quantize.litert_weights", {}),
        ("quantize.litert_float16", {}),
    ],
)
def test_a_table_that_litert_keeps_in_float_is_listed(forms, name, settings):
    assert left(forms, name, Form.LITERT, **settings) == {"words": TABLE}


def test_a_model_whose_layers_are_all_too_small_is_left_alone(forms):
    workshop, made = forms
    with quiet(), pytest.raises(AssertionError, match="no layer that it has a rule for has 1024"):
        workshop.apply(made[Form.LITERT], named("quantize.litert_dynamic"))


def test_layers_within_litert_loops_are_looked_at(forms):
    workshop, made = forms
    inside = [is_float for name, is_float in layers_of(made[Form.LITERT].path) if "while" in name]
    assert inside == [True, True]

    with quiet():
        found = workshop.apply(made[Form.LITERT], named("quantize.litert_dynamic", smallest=0))
    assert not any(is_float for _, is_float in layers_of(found.path))


def test_a_loop_whose_weights_nncf_did_not_compress_is_listed(forms):
    assert left(forms, "quantize.openvino_weights", Form.OPENVINO) == {"lstm": LOOP}


def test_a_table_and_a_loop_that_onnx_runtime_keeps_in_float_are_listed(forms):
    assert left(forms, "quantize.onnx_dynamic", Form.ONNX) == {
        "words": TABLE,
        "lstm": "a Loop, which the quantizer does not look into",
    }


def test_half_precision_leaves_nothing_of_it_in_single(forms):
    assert left(forms, "quantize.onnx_float16", Form.ONNX) == {}
