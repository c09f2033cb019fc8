# SPDX-License-Identifier: GPL-3.0-or-later
"""A link to one peer: the bytes of a TLS transport <-> the packets of a port.

An asyncio.BufferedProtocol: the transport decrypts straight into this buffer and packets are parsed there in place.
Memory of one link: 256 KiB of input, touched as it is used; more only while one packet larger than that (a route set
of over 21,845 entries) is arriving, never more than `max_input`.
"""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from cloudvpn._fast.port cimport Port
from cloudvpn._fast.sendq cimport SendQueue
from cloudvpn._fast.switch cimport Switch

cdef enum:
    INPUT_BYTES = 262144        # what uvloop reads from a socket at once
    INPUT_ROOM_MIN = 65536      # less room than this at the end: what is left moves to the front


@cython.final
cdef class Link(Port):
    cdef Switch switch
    cdef object owner           # LinkOwner: what to do when the link is made, up, lost
    cdef object transport       # None before and after
    cdef uint8_t* buffer
    cdef size_t start, end, room, max_input
    cdef readonly object reason  # why we closed it; None: we did not

    # Everything that a status line says of the link and the switch does not need.
    cdef public object info

    cdef void parse(self)
    # Memory has run out in the midst of something.
    cdef void fail(self) noexcept
