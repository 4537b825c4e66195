import inspect
import pickle

import pytest

from strop.core import errors

EXAMPLES = [
    errors.UnsafeModelError("the model has a Lambda layer.", allow="lambda"),
    errors.RecipeError(["step 1 is wrong", "step 3 too"]),
    errors.UnknownNameError("pass", "prune.chanels", ["prune.channels", "quantize.static"]),
    errors.MissingDependencyError("the runtime 'openvino'", "openvino"),
    errors.SubjectError("convert.litert @ litert", "the process ended"),
    *(
        kind("what is wrong.\nWhat would be right.")
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.StropError) and "__init__" not in vars(kind)
    ),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_crosses_to_another_process_whole(error):
    back = pickle.loads(pickle.dumps(error))

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_every_error_is_among_the_examples():
    assert {type(error).__name__ for error in EXAMPLES} == set(errors.__all__) - {"message"}


def test_an_unknown_name_offers_the_nearest_and_lists_all():
    error = errors.UnknownNameError(
        "pass", "prune.chanels", ["simplify.fold_batchnorm", "prune.channels"]
    )

    assert str(error) == (
        "there is no pass called 'prune.chanels'. Did you mean 'prune.channels'?\n"
        "  Known: prune.channels, simplify.fold_batchnorm."
    )


def test_a_name_like_no_other_gets_the_list_alone():
    error = errors.UnknownNameError("runtime", "qqq", [])

    assert str(error) == "there is no runtime called 'qqq'.\n  Known: none."


def test_a_missing_package_comes_with_the_line_that_installs_it():
    error = errors.MissingDependencyError("'openvino'", "openvino", "pip install strop[openvino]")

    assert str(error) == (
        "'openvino' needs the package 'openvino', which is not installed.\n"
        "  pip install strop[openvino]"
    )


def test_a_recipes_mistakes_are_all_told_at_once():
    error = errors.RecipeError(["step 1 is wrong", "step 3 too"])

    assert str(error) == "step 1 is wrong\nstep 3 too"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InputError, 2),
        (errors.MetricError, 2),
        (errors.GoalError, 1),
        (errors.NothingWorkedError, 3),
        (errors.TrialError, 3),
        (errors.MissingDependencyError, 3),
        (errors.Cancelled, 130),
    ],
)
def test_the_class_says_how_the_command_exits(kind, code):
    assert kind.exit_code == code
