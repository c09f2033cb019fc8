# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequence numbers of nodes and of claims, RFC 1982."""

from libc.stdint cimport uint32_t


cdef inline bint is_newer(uint32_t a, uint32_t b) noexcept nogil:
    """Neither of two that are half the circle apart is."""
    cdef uint32_t ahead = a - b
    return ahead != 0 and ahead < <uint32_t>0x80000000
