# SPDX-License-Identifier: GPL-3.0-or-later
"""What a daemon was doing in a sample: the library of the innermost frame, in the kernel what the stack passes."""

from __future__ import annotations

from bench.profile.samples import Frame, Sample

COPIES_USER = ("memmove", "memcpy", "memset", "memcmp")
COPIES_KERNEL = frozenset({"_copy_to_iter", "_copy_from_iter", "rep_movs_alternative", "copy_page_from_iter"})

# Part of the path of the library or program, and the group.
OBJECTS = (
    ("/libcrypto", "AES-GCM (libcrypto)"),
    ("/libssl", "TLS records (libssl)"),
    ("/uvloop/", "uvloop"),
    ("/cloudvpn/_fast/", "our modules (cloudvpn/_fast)"),
    ("/lib-dynload/", "Python"),
    ("python", "Python"),
)
# The first whose functions are all in the stack.
KERNEL: tuple[tuple[set[str], str], ...] = (
    ({"tcp_pace_kick"}, "TCP: pacing timer"),
    ({"tun_chr_write_iter"}, "TAP: write, with the TCP of the inner side"),
    ({"tun_chr_read_iter"}, "TAP: read"),
    ({"net_rx_action", "tcp_sendmsg"}, "TCP: write, in it the receive of the other side"),
    ({"net_rx_action"}, "TCP: receive in interrupts"),
    ({"tcp_sendmsg"}, "TCP: write"),
    ({"tcp_recvmsg"}, "TCP: read"),
    ({"do_epoll_wait"}, "waiting for events"),
    ({"__do_sys_io_uring_enter"}, "waiting for events"),
)

COPIED_USER = "copies in user space"
COPIED_KERNEL = "copies between kernel and user space"
LIBRARY = "C library: memory, locks, entries of system calls"
KERNEL_REST = "kernel: system calls, interrupts, scheduling"
ELSE = "anything else"

# As they stand in the table.
GROUPS = (
    OBJECTS[0][1], OBJECTS[1][1], COPIED_USER, COPIED_KERNEL,
    "TCP: write", "TCP: write, in it the receive of the other side", "TCP: pacing timer",
    "TCP: receive in interrupts", "TCP: read",
    "TAP: read", "TAP: write, with the TCP of the inner side",
    "waiting for events", KERNEL_REST, "Python", "uvloop", "our modules (cloudvpn/_fast)", LIBRARY, ELSE,
)  # fmt: skip


def group_of(sample: Sample) -> str:
    """One of GROUPS."""
    inner = sample.stack[0]
    return kernel_group(sample) if is_kernel(inner) else user_group(inner)


def is_kernel(frame: Frame) -> bool:
    return frame.object.startswith("[") and frame.object not in ("[vdso]", "[unknown]")


def kernel_group(sample: Sample) -> str:
    if sample.stack[0].symbol in COPIES_KERNEL:
        return COPIED_KERNEL
    return next((group for functions, group in KERNEL if functions <= sample.symbols), KERNEL_REST)


def user_group(frame: Frame) -> str:
    for part, group in OBJECTS:
        if part in frame.object:
            return group
    if any(copy in frame.symbol for copy in COPIES_USER):
        return COPIED_USER
    return LIBRARY if "/libc." in frame.object or frame.object == "[vdso]" else ELSE
