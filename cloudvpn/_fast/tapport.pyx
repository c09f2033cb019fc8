# SPDX-License-Identifier: GPL-3.0-or-later
"""The TAP: frames of its file descriptor <-> the switch, in batches."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcpy, memset
from posix.uio cimport iovec, writev
from posix.unistd cimport read, write

from cloudvpn._fast.clock cimport monotonic_us
from cloudvpn._fast.offload cimport GSO_UDP, Offload, is_plain
from cloudvpn._fast.segment cimport piece_size, write_piece


cdef class TapWriter(Coalescer):
    """Writes frames, joined where the TAP has offloads."""

    # HOT PATH
    cdef void emit(self, iovec* parts, int count, uint32_t size, uint32_t frames) noexcept:
        self.count(writev(self.fd, parts, count), size, frames)

    cdef void count(self, Py_ssize_t written, uint32_t size, uint32_t frames) noexcept:
        if written != <Py_ssize_t>size:
            self.refused_errno = errno
            self.refused += frames
            return
        self.writes += 1
        self.bytes_out += size


cdef class TapPort(Tap):
    """Reads and writes a non-blocking TAP descriptor. `lost(errno)` is called when it is dead.

    Counts calls and bytes, offload headers included: a super-frame is one call.
    """

    def __cinit__(self, loop not None, Switch switch not None, lost not None):
        self.loop = loop
        self.switch = switch
        self.lost = lost
        self.fd = -1
        self.wanted = True
        self.writer = TapWriter()
        self.writer.fd = -1

    def open(self, int fd, bint offloads=False, bint udp=False):
        """Takes this descriptor into use; the caller keeps owning it.

        With `offloads` it was opened with IFF_VNET_HDR; with `udp` the kernel takes super-frames of UDP, too.
        """
        self.fd = self.writer.fd = fd
        self.writer.offloads = offloads
        self.writer.joins_udp = udp
        self.set_reading()

    def close(self):
        """Lets the descriptor go, without closing it."""
        if self.reading:
            self.loop.remove_reader(self.fd)
            self.reading = False
        self.fd = self.writer.fd = -1

    cpdef set_wanted(self, bint wanted):
        self.wanted = wanted
        self.set_reading()

    cdef void set_reading(self):
        cdef bint reading = self.wanted and self.fd >= 0
        if reading == self.reading:
            return
        self.reading = reading
        if reading:
            self.loop.add_reader(self.fd, self.readable)
        else:
            self.loop.remove_reader(self.fd)

    def readable(self):
        """One wake-up: frames until there is none, the batch is full, or every link is paused."""
        cdef int frames = 0, failed = 0
        cdef Py_ssize_t size, total = 0
        cdef uint32_t header = OFFLOAD_BYTES if self.writer.offloads else 0
        cdef uint8_t* place
        cdef Offload offload
        memset(&offload, 0, OFFLOAD_BYTES)
        self.switch.now = monotonic_us()
        while frames < BATCH_FRAMES and total < BATCH_BYTES and self.reading:
            place = self.switch.room_for_frame()
            size = read(self.fd, place - header, header + SUPER_FRAME_MAX)
            if size < <Py_ssize_t>header or size == 0:
                failed = errno if size < 0 else EAGAIN
                break
            frames += 1
            total += size
            memcpy(&offload, place - header, header)
            self.switch.frame_from_tap(place, <uint32_t>size - header, &offload)
        self.reads += frames
        self.bytes_in += <uint64_t>total
        self.switch.flush_touched()
        if failed and failed != EAGAIN and failed != EINTR:
            self.close()        # or the loop would wake up for it without end
            self.lost(failed)

    # HOT PATH
    cdef void deliver(self, const Cut* cut) noexcept:
        cdef TapWriter writer = self.writer
        if not writer.offloads:
            if is_plain(&cut.offload):
                writer.count(write(self.fd, cut.frame, cut.size), cut.size, 1)
            else:
                self.deliver_pieces(cut)
        elif cut.pieces == 1:
            writer.add(cut.frame, cut.size, &cut.offload)
        elif cut.offload.gso_type == GSO_UDP and not (writer.joins_udp and cut.pieces <= UDP_PIECES_MAX):
            writer.finish()
            self.deliver_pieces(cut)
        else:
            writer.add_alone(cut.frame, cut.size, &cut.offload, cut.pieces)

    cdef void deliver_pieces(self, const Cut* cut) noexcept:
        """As plain frames, for a kernel that takes no others."""
        cdef uint32_t index, size, header = OFFLOAD_BYTES if self.writer.offloads else 0
        cdef uint8_t* start = self.piece + OFFLOAD_BYTES - header
        memset(self.piece, 0, OFFLOAD_BYTES)
        for index in range(cut.pieces):
            size = piece_size(cut, index)
            write_piece(cut, index, self.piece + OFFLOAD_BYTES)
            self.writer.count(write(self.fd, start, header + size), header + size, 1)

    # HOT PATH
    cdef uint32_t flush(self) noexcept:
        cdef uint32_t refused
        self.writer.finish()
        refused = self.writer.refused
        self.writer.refused = 0
        return refused

    @property
    def writes(self):
        return self.writer.writes

    @property
    def bytes_out(self):
        return self.writer.bytes_out

    @property
    def refused_errno(self):
        """Why the kernel refused the last frame that it refused; 0: none yet."""
        return self.writer.refused_errno
