"""What holds for every test: the same randomness each time, and no clock in hypothesis' verdicts."""

from hypothesis import settings

# A shared machine is slow at times, and a deadline would then fail a test that is right.
settings.register_profile("strop", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("strop")
