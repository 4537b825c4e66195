from hypothesis import given
from hypothesis import strategies as st

from strop.graph.names import unique


def test_names_that_occur_once_stay():
    assert unique(["a", "b"]) == ["a", "b"]


@given(st.lists(st.sampled_from(["a", "b", "a_0", "a_1", "a_0_0"])))
def test_no_two_are_alike_and_those_that_were_alone_stay(names):
    found = unique(names)

    assert len(set(found)) == len(names)
    assert all(b == a for a, b in zip(names, found, strict=True) if names.count(a) == 1)
