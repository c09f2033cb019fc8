# SPDX-License-Identifier: GPL-3.0-or-later
"""A token bucket: what a rate lets through, in integers without drift, on a clock that its user hands in.

Tokens are what the rate counts: bytes, or frames. A bucket is open while it holds any; what passes may put it into debt
by one cost. `burst` caps what is saved up while nobody asks. Whoever found it shut and comes back late, because a timer
has a grain or a batch took its time, gets what it missed, up to CATCH_UP_US: otherwise no small burst could ever give a
large rate. So in any time t at most rate x t + max(burst, rate x CATCH_UP_US) + one cost pass, and from a bucket that
was left alone at most burst + one cost.
"""

from libc.stdint cimport int64_t

cdef enum:
    CATCH_UP_US = 50_000
    PER_TOKEN = 1_000_000       # parts of a token: a microsecond at a rate of one a second

cdef struct Bucket:
    int64_t rate                # tokens a second, up to 2^40; 0: no limit, always open
    int64_t burst               # tokens, 1 to 2^30
    int64_t level               # parts of tokens
    int64_t filled              # us, the time of `level`
    bint wanted                 # somebody was refused since then


cdef inline void set_bucket(Bucket* bucket, int64_t rate, int64_t burst, int64_t now) noexcept nogil:
    """Full."""
    bucket.rate = rate
    bucket.burst = burst
    bucket.level = burst * PER_TOKEN
    bucket.filled = now
    bucket.wanted = False


cdef inline void fill(Bucket* bucket, int64_t now) noexcept nogil:
    cdef int64_t elapsed = now - bucket.filled, most = bucket.burst * PER_TOKEN
    if elapsed <= 0:
        return
    if bucket.wanted:
        most = max(most, bucket.rate * CATCH_UP_US)
        bucket.wanted = False
    bucket.filled = now
    if elapsed > (most - bucket.level) // bucket.rate:      # also where the product would overflow
        bucket.level = most
    else:
        bucket.level += elapsed * bucket.rate


# HOT PATH
cdef inline bint is_open(Bucket* bucket, int64_t now) noexcept nogil:
    if bucket.rate == 0:
        return True
    fill(bucket, now)
    if bucket.level > 0:
        return True
    bucket.wanted = True
    return False


# HOT PATH
cdef inline void charge(Bucket* bucket, int64_t tokens) noexcept nogil:
    if bucket.rate:
        bucket.level -= tokens * PER_TOKEN


cdef inline bint is_shut(const Bucket* bucket) noexcept nogil:
    """As it was when it was filled last."""
    return bucket.rate != 0 and bucket.level <= 0


cdef inline int64_t opens_at(const Bucket* bucket) noexcept nogil:
    """The first microsecond at which a bucket that is shut will be open."""
    return bucket.filled + -bucket.level // bucket.rate + 1


cdef class TokenBucket:
    cdef Bucket bucket
