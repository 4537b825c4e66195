"""A batch cut into parts answers as the whole does, whatever its size and however many threads take parts."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.core.errors import ExecutionError
from strop.core.predictor import Session
from strop.core.slicing import SlicedSession, streams_of


class Doubling(Session):
    """Double what it is given, in a buffer that the next call overwrites; notes how many samples came, and where."""

    def __init__(self, failing_at=None):
        self.sizes, self.threads, self.closed, self.failing_at = [], set(), 0, failing_at

    def run(self, feeds):
        (feed,) = feeds
        self.sizes.append(len(feed))
        self.threads.add(threading.get_ident())
        if self.failing_at is not None and self.failing_at in feed:
            raise ExecutionError("the engine failed")
        if not hasattr(self, "buffer") or len(self.buffer) != len(feed):
            self.buffer = np.empty(len(feed), feed.dtype)
        self.buffer[...] = 2 * feed
        return [self.buffer]

    def clone(self):
        return Doubling(self.failing_at)

    def close(self):
        self.closed += 1


def sliced(streams, size, **settings):
    return SlicedSession([Doubling(**settings) for _ in range(streams)], size)


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    size=st.integers(1, 12),
    streams=st.integers(1, 4),
)
def test_batches_of_changing_size_answer_as_they_do_whole(counts, size, streams):
    session = sliced(streams, size)
    for count in counts:
        feed = np.arange(count, dtype="float32")
        (found,) = session.run([feed])
        np.testing.assert_array_equal(found, 2 * feed)
    assert {called for one in session._sessions for called in one.sizes} == {size}
    session.close()


def test_parts_are_taken_by_threads_of_their_own():
    first, second = Doubling(), Doubling()
    both_at_once = threading.Barrier(2, timeout=20)
    session = SlicedSession([first, second], 1)
    session.run([np.zeros(2)])
    for one in (first, second):
        one.threads.clear()
        plain = one.run
        one.run = lambda feeds, plain=plain: (both_at_once.wait(), plain(feeds))[1]
    session.run([np.ones(2)])
    assert len(first.threads | second.threads) == 2
    session.close()


@pytest.mark.parametrize("failing_at", [0.0, 7.0, 15.0])
def test_a_failure_in_any_part_is_told_and_the_next_call_works(failing_at):
    session = sliced(2, 4)
    session.run([np.full(16, 100.0)])
    for one in session._sessions:
        one.failing_at = failing_at
    with pytest.raises(ExecutionError, match="the engine failed"):
        session.run([np.arange(16.0)])
    np.testing.assert_array_equal(session.run([np.full(16, 30.0)])[0], np.full(16, 60.0))
    session.close()


def test_outputs_without_a_row_a_sample_are_refused():
    session = sliced(1, 2)
    session._sessions[0].run = lambda feeds: [np.float32(1)]
    with pytest.raises(ExecutionError, match="one row a sample"):
        session.run([np.zeros(4)])


def test_a_clone_is_another_and_closing_twice_is_harmless():
    session = sliced(2, 2)
    clone = session.clone()
    session.close()
    session.close()
    np.testing.assert_array_equal(clone.run([np.ones(5)])[0], np.full(5, 2.0))
    clone.close()


def test_nought_threads_are_as_many_as_there_are_processors():
    assert streams_of(3) == 3
    assert streams_of(0) >= 1
