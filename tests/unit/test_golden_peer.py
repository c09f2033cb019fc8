# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the oracle itself: the golden streams against the version-1 peer's own unpacker, and two peers joined."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from tests.golden.streams import FRAME_14, FRAME_60, FRAME_GROUP, MAC_A, MAC_B, STREAMS, Routes, Stream
from tests.golden.v1peer import TYPES, Unpacker, V1Peer, accept, apply, dial, listen, pack, tls_context
from tests.netns.keys import identity

each_stream = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)


def test_every_packet_type_has_a_stream() -> None:
    assert {packet[0] for stream in STREAMS for packet in stream.packets} == set(TYPES)


def test_the_frames_have_the_lengths_their_names_say() -> None:
    assert (len(FRAME_14), len(FRAME_60), len(FRAME_GROUP)) == (14, 60, 42)


@each_stream
def test_a_stream_means_what_it_says(stream: Stream) -> None:
    unpacker = Unpacker()
    assert unpacker.feed(stream.data) == stream.packets
    assert not unpacker.has_rest


@each_stream
def test_a_stream_cut_at_any_byte_means_the_same(stream: Stream) -> None:
    for cut in range(len(stream.data) + 1):
        unpacker = Unpacker()
        assert unpacker.feed(stream.data[:cut]) + unpacker.feed(stream.data[cut:]) == stream.packets, cut


def test_all_streams_glued_and_fed_byte_by_byte_mean_the_same() -> None:
    unpacker = Unpacker()
    data = b"".join(stream.data for stream in STREAMS)
    packets = [packet for at in range(len(data)) for packet in unpacker.feed(data[at : at + 1])]
    assert packets == [packet for stream in STREAMS for packet in stream.packets]


@each_stream
def test_the_packer_writes_exactly_the_canonical_streams(stream: Stream) -> None:
    assert (b"".join(map(pack, stream.packets)) == stream.data) == stream.canonical


@each_stream
def test_a_stream_announces_what_it_says(stream: Stream) -> None:
    routes: Routes = {}
    for packet in stream.packets:
        routes = apply(routes, packet)
    assert routes == (stream.announced or {})


@pytest.mark.parametrize("kind", [0, 8, 255])
def test_nothing_is_read_behind_an_unknown_type(kind: int) -> None:
    unpacker = Unpacker()
    assert unpacker.feed(bytes([kind, 0, 0, 0]) + pack(("route_request",))) == [("unknown", kind)]
    assert unpacker.feed(pack(("route_request",))) == []


# Two peers in one thread, over TCP on the loopback


def join(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[V1Peer, V1Peer]:
    with listen(("127.0.0.1", 0)) as listener:
        near = V1Peer(socket.create_connection(listener.getsockname()), client, False)
        far = V1Peer(listener.accept()[0], server, True)
    for peer in (far, near, far, near):  # a handshake is at most two flights from each side
        if not (peer.is_ready or near.ended or far.ended):
            peer.poll(5)
    return near, far


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls12", "tls13"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[V1Peer, V1Peer]]:
    version = request.param
    near, far = join(
        tls_context(True, *identity("there", "rsa"), version=version),
        tls_context(False, *identity("here", "ecdsa"), version=version),
    )
    with near, far:
        assert near.tls_version == far.tls_version == version.name.replace("_", ".")
        yield near, far


def test_what_one_peer_says_the_other_hears(pair: tuple[V1Peer, V1Peer]) -> None:
    near, far = pair
    near.send_route_set([(MAC_A, 0, 1)])
    near.send_route_diff([(MAC_B, 1, 1500), (MAC_A, 0, 0)])
    near.send_frame(FRAME_60)
    near.send_broadcast(7, FRAME_GROUP)
    near.send_route_request()
    far.expect("route_request")
    assert far.received == [
        ("route_set", [(MAC_A, 0, 1)]),
        ("route_diff", [(MAC_B, 1, 1500), (MAC_A, 0, 0)]),
        ("frame", FRAME_60),
        ("broadcast", 7, FRAME_GROUP),
        ("route_request",),
    ]
    assert far.headers == [(1, 0, 1), (2, 0, 2), (3, 0, 60), (4, 0, 42), (7, 0, 0)]
    assert far.routes == {MAC_B: (1, 1500)}
    assert far.expect(lambda packet: packet[0] == "broadcast")[1] == 7
    assert ("broadcast", 7, FRAME_GROUP) not in far.unread


def test_an_echo_request_is_answered_at_once_or_when_told(pair: tuple[V1Peer, V1Peer]) -> None:
    near, far = pair
    near.send_echo(200)
    far.expect("echo_request")
    near.expect(("echo_reply", 200))
    far.answer_echo = False
    near.send_echo(201)
    far.expect("echo_request")
    far.send_route_request()
    near.expect("route_request")
    assert ("echo_reply", 201) not in near.received
    far.answer_echoes()
    near.expect(("echo_reply", 201))


def test_what_does_not_come_is_an_error_that_shows_what_came(pair: tuple[V1Peer, V1Peer]) -> None:
    near, far = pair
    near.send_frame(FRAME_14)
    with pytest.raises(AssertionError, match=r"'route_set' did not come \(0.1 s over\).*'frame'"):
        far.expect("route_set", deadline=0.1)


@pytest.mark.parametrize(
    ("end", "seen"),
    [
        (V1Peer.close, "close_notify"),
        (V1Peer.close_notify, "close_notify"),
        (V1Peer.half_close, "eof"),
        (V1Peer.reset, "reset"),
    ],
    ids=["close", "close_notify", "half_close", "reset"],
)
def test_each_end_of_a_link_is_told_from_the_others(
    pair: tuple[V1Peer, V1Peer], end: Callable[[V1Peer], None], seen: str
) -> None:
    near, far = pair
    end(near)
    assert far.wait_end() == seen
    with pytest.raises(AssertionError, match=seen):
        far.expect("frame")


@pytest.mark.parametrize("half", [V1Peer.close_notify, V1Peer.half_close], ids=["close_notify", "half_close"])
def test_after_half_a_close_the_peer_still_hears(pair: tuple[V1Peer, V1Peer], half: Callable[[V1Peer], None]) -> None:
    near, far = pair
    half(near)
    far.send_frame(FRAME_60)
    near.expect(("frame", FRAME_60))


def test_a_certificate_of_another_authority_ends_the_handshake() -> None:
    near, far = join(
        tls_context(True, *identity("here")),
        tls_context(False, *identity("stranger", ca="other")._replace(ca=identity("here").ca)),
    )
    with near, far:
        assert far.wait_end() == "tls: CERTIFICATE_VERIFY_FAILED"
        assert near.wait_end() == "tls: TLSV1_ALERT_UNKNOWN_CA"


def test_dialling_nobody_and_waiting_for_nobody_end_in_time() -> None:
    context = tls_context(True, *identity("here"))
    with listen(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with pytest.raises(TimeoutError):
            accept(listener, context, deadline=0.05)
    with pytest.raises(ConnectionRefusedError):
        dial(address, tls_context(False, *identity("here")), deadline=1)
