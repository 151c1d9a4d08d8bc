"""A Matrix for tests: rows of an array, handed out on demand, with a record of what was asked."""


class Rows:
    """What a shard or a quantised tensor looks like to an op."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.asked = []

    def rows(self, lo, hi):
        self.asked.append((lo, hi))
        return self.array[lo:hi]
