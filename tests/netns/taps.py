# SPDX-License-Identifier: GPL-3.0-or-later
"""TAPs that a test holds itself, plain or with the kernel's offload header (IFF_VNET_HDR) before each frame."""

from __future__ import annotations

import fcntl
import os
import select
import struct

from tests.model.naive_offload import PLAIN, Offload
from tests.netns.lab import Host

IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
# What the reader takes besides plain frames (TUN_F_...); USO needs Linux 6.2.
CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6 = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40
TSO = CSUM | TSO4 | TSO6 | TSO_ECN
USO = USO4 | USO6
HEADER = struct.Struct("=BBHHHH")
LARGEST = 1 << 17


class Tap:
    """A TAP in the host's namespace, up, of the largest MTU; with offloads it has the header. Gone when closed."""

    def __init__(self, host: Host, name: str, offloads: int | None = None) -> None:
        self.name, self.has_header = name, offloads is not None
        with host.inside():
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if self.has_header else 0)
            fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            if offloads is not None:
                fcntl.ioctl(self.fd, TUNSETOFFLOAD, offloads)
            host.ip(f"link set {name} mtu 65521 txqueuelen 10000 up")
        except BaseException:
            self.close()
            raise

    def write(self, frame: bytes, offload: Offload = PLAIN) -> None:
        data = HEADER.pack(*offload) + frame if self.has_header else frame
        assert os.write(self.fd, data) == len(data)

    def read(self, timeout: float = 5.0) -> tuple[Offload, bytes] | None:
        """The next frame, waited for at most `timeout` seconds."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return None
        data = os.read(self.fd, LARGEST)
        if not self.has_header:
            return PLAIN, data
        flags, kind, header_size, size, start, offset = HEADER.unpack_from(data)
        return (flags, kind, header_size, size, start, offset), data[HEADER.size :]

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def takes_uso(host: Host) -> bool:
    try:
        Tap(host, "probe", TSO | USO).close()
    except OSError:
        return False
    return True
