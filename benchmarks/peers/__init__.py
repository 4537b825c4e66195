"""Other tools, each in an environment of its own, beside strop: the same network, samples, schedule and epochs."""
