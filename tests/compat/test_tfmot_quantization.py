"""What TensorFlow's guides to quantization-aware training do, done with strop's names, to the end."""

import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import strop.compat.tfmot as tfmot
from strop.compat.tfmot.quantization import keras as quantization
from tests.compat.conftest import compiled, in_litert
from tests.models import convnet, nested, transformer

quantizers = quantization.quantizers
annotated = quantization.quantize_annotate_layer


class DenseConfig(quantization.QuantizeConfig):
    """How a dense layer is quantized, said by hand."""

    bits = 8

    def get_weights_and_quantizers(self, layer):
        of = {"per_axis": False, "symmetric": True, "narrow_range": False}
        return [(layer.kernel, quantizers.LastValueQuantizer(num_bits=self.bits, **of))]

    def get_activations_and_quantizers(self, layer):
        of = {"per_axis": False, "symmetric": False, "narrow_range": False}
        return [(layer.activation, quantizers.MovingAverageQuantizer(num_bits=8, **of))]

    def set_quantize_weights(self, layer, quantize_weights):
        layer.kernel = quantize_weights[0]

    def set_quantize_activations(self, layer, quantize_activations):
        layer.activation = quantize_activations[0]

    def get_output_quantizers(self, layer):
        return []

    def get_config(self):
        return {}


class FourBits(DenseConfig):
    bits = 4


class OnlyWeights(DenseConfig):
    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        return


class Clipped(quantizers.Quantizer):
    """A quantizer of somebody's own."""

    def build(self, tensor_shape, name, layer):
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        return ops.clip(inputs, -0.1, 0.1)

    def get_config(self):
        return {}


class ByClipping(OnlyWeights):
    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, Clipped())]


class CustomLayer(layers.Dense):
    pass


def net(kind=layers.Dense, config=None, *, marked=True):
    keras.utils.set_random_seed(1)
    first = kind(20, activation="relu", name="first")
    if marked:
        first = annotated(first, config)
    return keras.Sequential([keras.Input((20,)), first, layers.Flatten(name="flat")])


def drawn(count=64):
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 20)).astype("float32")
    return x, np.maximum(x @ random.normal(size=(20, 20)), 0).astype("float32")


def fit(model, **given):
    model.compile("adam", "mse", run_eagerly=True, jit_compile=False)
    model.fit(*drawn(), batch_size=16, verbose=0, **given)
    return model


def answers(model):
    return model.predict(drawn()[0], verbose=0)


def test_the_names_of_the_guides_are_modules_and_names():
    assert tfmot.quantization.keras is quantization
    assert "strop.compat.tfmot.quantization.keras.quantizers" in sys.modules
    assert {"quantize_model", "quantize_annotate_layer", "quantize_annotate_model", "quantize_apply",
            "quantize_scope", "QuantizeConfig", "quantizers"} <= set(quantization.__all__)  # fmt: skip
    for name in quantization.__all__:
        assert getattr(quantization, name) is not None


@pytest.fixture(scope="module")
def aware(taught):
    """The digits' model, taught to be quantized."""
    before = taught.model.get_weights()
    model = compiled(tfmot.quantization.keras.quantize_model(taught.model), 1e-3)
    model.fit(*taught.train, batch_size=100, epochs=2, validation_split=0.1, verbose=0)
    for was, stayed in zip(before, taught.model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, stayed)  # the one that was given is not changed
    return model


def test_what_was_taught_computes_in_integers_from_end_to_end(taught, aware):
    found = in_litert(aware, taught.test[0])

    assert found.floats == ["QUANTIZE", "DEQUANTIZE"]
    assert {"CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D"} <= {name for name, _ in found.operations}
    assert found.codes(216).dtype == found.codes(2160).dtype == np.int8
    right = np.mean(found.answers.argmax(-1) == taught.test[1])
    assert right >= taught.accuracy_of(aware) - 0.01
    assert taught.accuracy_of(aware) >= taught.accuracy - 0.02 > 0.93
    expected = aware.predict(taught.test[0], verbose=0)
    # Integer kernels round halves otherwise: a code of the input to the last layer, or of what it gives, here and there.
    assert np.abs(found.answers - expected).max() < 4 * np.ptp(expected) / 255
    assert found.size < 0.5 * in_litert(taught.model, taught.test[0], "").size


def test_layers_are_called_as_the_guides_call_them(aware):
    assert {"quant_conv2d", "quant_dense"} <= {layer.name.rstrip("_0123456789") for layer in aware.layers}  # fmt: skip
    named = quantization.quantize_model(net(marked=False), quantized_layer_name_prefix="q_")
    assert named.get_layer("q_first").layer.name == "first"


def test_a_model_saved_is_loaded_and_taught_on(taught, aware, tmp_path):
    aware.save(tmp_path / "aware.keras")
    with quantization.quantize_scope():
        loaded = keras.models.load_model(tmp_path / "aware.keras")
    x = taught.test[0]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), aware.predict(x, verbose=0))
    assert in_litert(loaded, x).floats == ["QUANTIZE", "DEQUANTIZE"]
    loaded.fit(taught.train[0][:200], taught.train[1][:200], verbose=0)


def test_without_being_taught_it_converts_and_is_of_some_use(taught):
    model = quantization.quantize_model(taught.model)
    found = in_litert(model, taught.test[0])
    assert found.floats == ["QUANTIZE", "DEQUANTIZE"]
    assert np.mean(found.answers.argmax(-1) == taught.test[1]) > 0.6


def test_only_layers_that_are_annotated_by_a_function_that_clones_are_rounded():
    base = keras.Sequential([*net(marked=False).layers, layers.Dense(20, name="last")])
    base.build((None, 20))
    weights = base.get_weights()

    def annotated_if_first(layer):
        return annotated(layer) if layer.name == "first" else layer

    model = quantization.quantize_apply(keras.models.clone_model(base, clone_function=annotated_if_first))  # fmt: skip
    fit(model)
    found = in_litert(model, drawn()[0])
    names = [name for name, types in found.operations if "int8" in types]
    assert names.count("FULLY_CONNECTED") == 1
    assert "FULLY_CONNECTED" in found.floats
    for was, stayed in zip(weights, base.get_weights(), strict=True):
        np.testing.assert_array_equal(was, stayed)


def test_layers_are_annotated_where_a_functional_model_calls_them():
    inputs = keras.Input((20,))
    x = annotated(layers.Dense(20, activation="relu"))(inputs)
    model = quantization.quantize_apply(keras.Model(inputs, layers.Flatten()(x)))
    found = in_litert(fit(model), drawn()[0])
    assert ("FULLY_CONNECTED", {"int8", "int32"}) in found.operations


@pytest.mark.parametrize(("config", "most"), [(DenseConfig, 255), (FourBits, 15)])
def test_a_config_of_ones_own_says_how_a_layer_is_rounded(config, most, tmp_path):
    model = quantization.quantize_annotate_model(net(CustomLayer, config()))
    scope = {config.__name__: config, "CustomLayer": CustomLayer}
    with quantization.quantize_scope(scope):
        model = quantization.quantize_apply(model)
    fit(model, epochs=3)

    found = in_litert(model, drawn()[0])
    assert ("FULLY_CONNECTED", {"int8", "int32"}) in found.operations
    assert np.unique(found.codes(400)).size <= most
    model.save(tmp_path / "own.keras")
    with quantization.quantize_scope(scope):
        loaded = keras.models.load_model(tmp_path / "own.keras")
    np.testing.assert_array_equal(answers(loaded), answers(model))
    fit(loaded)


def test_four_bits_are_coarser_than_eight():
    exact = answers(net(marked=False))
    wrong = []
    for config in (DenseConfig, FourBits):
        model = quantization.quantize_apply(net(config=config()))
        model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
        model.fit(*drawn(), batch_size=64, verbose=0)  # finds ranges, and changes no weight
        wrong.append(np.abs(answers(model) - exact).mean())
    assert 3 * wrong[0] < wrong[1] < 0.3 * exact.mean()


def test_what_is_not_to_be_rounded_is_not():
    model = quantization.quantize_apply(net(config=OnlyWeights()))
    fit(model)
    found = answers(model)
    assert np.unique(found).size > 256


def test_a_quantizer_of_ones_own_computes_what_it_says():
    base = net(config=ByClipping())
    model = quantization.quantize_apply(base)
    kernel = np.clip(np.array(base.get_layer("first").kernel), -0.1, 0.1)
    # The input is rounded, to steps of 12/255 before any batch was seen: by half a step for each of 20 weights at most.
    expected = np.maximum(drawn()[0] @ kernel, 0)
    assert np.abs(answers(model) - expected).max() <= 20 * 0.1 * 6 / 255 + 1e-5
    fit(model)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_quantizers_round_to_as_many_values_as_they_have_codes(bits, per_axis, symmetric):
    x = (np.random.default_rng(0).normal(size=(5000, 2)) * [1, 10]).astype("float32")
    for kind in (quantizers.LastValueQuantizer, quantizers.MovingAverageQuantizer, quantizers.AllValuesQuantizer):  # fmt: skip
        holder = layers.Layer()
        quantizer = kind(num_bits=bits, per_axis=per_axis, symmetric=symmetric, narrow_range=False)
        weights = quantizer.build(x.shape, "x", holder)
        found = np.array(quantizer(ops.convert_to_tensor(x), True, weights=weights))
        step = (2 if symmetric else 1) * np.ptp(x, axis=0 if per_axis else None) / (2**bits - 2)
        assert np.all(np.abs(found - x) <= 0.51 * step + 1e-6)
        assert all(np.unique(found[:, c]).size <= 2**bits - symmetric for c in (0, 1))
        assert kind.from_config(quantizer.get_config()).get_config() == quantizer.get_config()
        assert 0.0 in np.array(quantizer(ops.zeros((1, 2)), False, weights=weights))


def test_ranges_follow_what_is_given_as_their_names_say():
    def after(kind, *batches):
        quantizer = kind(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
        weights = quantizer.build((1,), "x", layers.Layer())
        for batch in batches:
            quantizer(ops.convert_to_tensor(np.array(batch, "float32")), True, weights=weights)
        return [round(float(weights[end]), 4) for end in ("min", "max")]

    batches = [-1, 8], [-2, 4]
    assert after(quantizers.LastValueQuantizer, *batches) == [-2, 4]
    assert after(quantizers.AllValuesQuantizer, *batches) == [-2, 8]
    assert after(quantizers.MovingAverageQuantizer, *batches) == [-1.01, 7.96]
    assert after(quantizers.MovingAverageQuantizer) == [-6, 6]


def test_a_fixed_range_stays():
    quantizer = quantizers.FixedQuantizer(8, init_min=-1.0, init_max=1.0, narrow_range=True)
    found = np.array(quantizer(ops.convert_to_tensor([-3.0, 0.0, 2.0]), True, weights={}))
    np.testing.assert_allclose(found, [-1, 0, 1], atol=1e-6)


def test_normalization_and_nested_models_are_quantized():
    x = np.random.default_rng(0).normal(size=(16, 12, 12, 3)).astype("float32")
    model = quantization.quantize_model(convnet())
    model.compile("adam", "mse", run_eagerly=True, jit_compile=False)
    model.fit(x, np.zeros((16, 5)), verbose=0)
    assert in_litert(model, x).floats == ["QUANTIZE", "DEQUANTIZE"]
    assert len(quantization.quantize_model(nested()).inputs) == 2


def test_what_stays_in_float_is_listed():
    with pytest.warns(UserWarning, match="these layers are not quantized:(.*\n)+  embedding\\w*: a table"):  # fmt: skip
        quantization.quantize_model(transformer())


def test_what_cannot_be_is_a_value_error():
    class Own(keras.Model):
        def call(self, x):
            return x

    for wrong, called in (
        ("expected a Sequential or a Functional", lambda: quantization.quantize_model(Own())),
        ("is not built", lambda: quantization.quantize_model(keras.Sequential([layers.Dense(2)]))),
        ("no layer of the model .* is annotated", lambda: quantization.quantize_apply(net(marked=False))),
        ("expected a Keras layer, got a 'Sequential'", lambda: annotated(net())),
        ("expected an instance of a QuantizeConfig", lambda: annotated(layers.Dense(2), DenseConfig)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=wrong):
            called()


def test_one_grid_a_layer_where_channels_are_to_have_none_of_their_own():
    scheme = quantization.default_8bit.Default8BitQuantizeScheme(disable_per_axis=True)
    base = quantization.quantize_annotate_model(net(marked=False))
    first = quantization.quantize_apply(base, scheme).get_layer("quant_first")
    assert first.per_channel is False
    assert quantization.quantize_apply(base).get_layer("quant_first").per_channel is True
