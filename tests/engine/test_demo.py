import numpy as np


def test_the_demonstration_trains_a_model_that_is_worth_keeping(digits):
    assert digits.accuracy > 0.9
    with np.load(digits.data) as data:
        assert {name: data[name].shape for name in data} == {
            "x_train": (898, 8, 8, 1),
            "y_train": (898,),
            "x_test": (899, 8, 8, 1),
            "y_test": (899,),
        }


def test_the_trained_model_answers_as_well_when_loaded_again(digits):
    import keras

    model = keras.models.load_model(digits.model)
    with np.load(digits.data) as data:
        right = model.predict(data["x_test"], verbose=0).argmax(-1) == data["y_test"]

    # The same sums in another order of batches: a float32 tie may fall the other way for a sample or two.
    assert abs(right.mean() - digits.accuracy) <= 2 / 899
