from hypothesis import given
from hypothesis import strategies as st

from strop.numerics.pareto import pareto_front

points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20)


@given(points)
def test_every_point_is_on_the_front_or_dominated_by_one_there(given_points):
    front = pareto_front(given_points)
    for index, point in enumerate(given_points):
        beaten = any(
            given_points[f] != point
            and all(a <= b for a, b in zip(given_points[f], point, strict=True))
            for f in front
        )
        assert (index in front) != beaten


def test_equal_points_all_stay():
    assert pareto_front([(1.0, 1.0), (1.0, 1.0)]) == [0, 1]
