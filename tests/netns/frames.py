# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw Ethernet frames on one interface, as a class and as a command that prints JSON.

frames.py send IFACE HEX...                      {"sent": 2}
frames.py sniff IFACE [--count 1] [--seconds 5]  {"ready": true}, then {"frames": ["02aa..."]}
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import time
from collections.abc import Callable

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_AUXDATA = 8
PACKET_IGNORE_OUTGOING = 23
SO_RCVBUFFORCE = 33
AUXDATA = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan_tci, vlan_tpid
TP_STATUS_VLAN_VALID = 1 << 4
RECEIVE_BUFFER = 16 << 20
LARGEST = 1 << 17


class FramePort:
    """Sees every frame that arrives at the interface from its creation on, none that leaves there."""

    def __init__(self, iface: str) -> None:
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        self._sock.bind((iface, ETH_P_ALL))

    def send(self, frame: bytes) -> None:
        self._sock.settimeout(None)
        self._sock.send(frame)

    def receive(self, timeout: float = 0.0) -> bytes | None:
        """The next frame, waited for at most `timeout` seconds."""
        self._sock.settimeout(max(timeout, 0.0))
        try:
            frame, extras, _, _ = self._sock.recvmsg(LARGEST, socket.CMSG_SPACE(AUXDATA.size))
        except (TimeoutError, BlockingIOError):
            return None
        for level, kind, data in extras:
            if level == SOL_PACKET and kind == PACKET_AUXDATA:
                status, _, _, _, _, tci, tpid = AUXDATA.unpack(data)
                if status & TP_STATUS_VLAN_VALID:  # the kernel has taken the tag off
                    frame = frame[:12] + struct.pack(">HH", tpid, tci) + frame[12:]
        return frame

    def drain(self) -> list[bytes]:
        """All frames that have arrived."""
        frames = []
        while (frame := self.receive()) is not None:
            frames.append(frame)
        return frames

    def expect(self, predicate: Callable[[bytes], object], deadline: float = 5.0) -> list[bytes]:
        """Reads on to the first frame that matches; all frames read, it is the last one."""
        end = time.monotonic() + deadline
        frames: list[bytes] = []
        while (left := end - time.monotonic()) > 0:
            if (frame := self.receive(left)) is not None:
                frames.append(frame)
                if predicate(frame):
                    return frames
        raise AssertionError(f"no such frame in {deadline} s; the last ones: {[frame.hex() for frame in frames[-5:]]}")

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> FramePort:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    send = commands.add_parser("send")
    send.add_argument("iface")
    send.add_argument("frames", nargs="+", type=bytes.fromhex)
    sniff = commands.add_parser("sniff")
    sniff.add_argument("iface")
    sniff.add_argument("--count", type=int, default=1)
    sniff.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    with FramePort(arguments.iface) as port:
        if arguments.command == "send":
            for frame in arguments.frames:
                port.send(frame)
            print(json.dumps({"sent": len(arguments.frames)}))
            return
        print(json.dumps({"ready": True}), flush=True)
        end = time.monotonic() + arguments.seconds
        frames: list[str] = []
        while len(frames) < arguments.count and (left := end - time.monotonic()) > 0:
            if (got := port.receive(left)) is not None:
                frames.append(got.hex())
        print(json.dumps({"frames": frames}))


if __name__ == "__main__":
    main()
