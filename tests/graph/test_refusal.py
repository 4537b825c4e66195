import pytest

from strop.graph.refusal import gist, refusal


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            'loc(callsite(fused["Foo:", "a/b"] at fused["Call:", "c"])): error: no kernel for Foo\n'
            "note: called from",
            "error: no kernel for Foo",
        ),
        (
            "Exception from src/inference/src/cpp/core.cpp:84:\nCheck 'false' failed\n"
            "No conversion rule found for operations: Erfc-18",
            "No conversion rule found for operations: Erfc-18",
        ),
        ("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel : for Foo", "no kernel : for Foo"),
        ("x" * 400, "x" * 300),
        ("  \n\nshape mismatch\nmore", "shape mismatch"),
    ],
)
def test_the_line_that_tells_something_is_kept(said, meant):
    assert gist(RuntimeError(said)) == meant


def test_an_error_without_words_gives_its_kind():
    assert str(refusal("tf2onnx", KeyError())) == "tf2onnx refused the model: KeyError"
