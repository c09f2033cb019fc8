# SPDX-License-Identifier: GPL-3.0-or-later
"""A token bucket: what a rate lets through, in integers without drift, on a clock that its user hands in."""


cdef class TokenBucket:
    """What Python sees, for tests: one bucket, full at the time `now` (us)."""

    def __cinit__(self, int64_t rate, int64_t burst, int64_t now):
        set_bucket(&self.bucket, rate, burst, now)

    def is_open(self, int64_t now):
        return is_open(&self.bucket, now)

    def charge(self, int64_t tokens):
        charge(&self.bucket, tokens)

    def opens_at(self):
        """For a bucket that is shut: the first time (us) at which it will be open."""
        return opens_at(&self.bucket)
