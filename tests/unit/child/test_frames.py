import json
import socket
import struct
from collections.abc import Iterator

import pytest

from modelrepo_runtime.child.frames import BadFrame, Channel, pack

LIMIT = 1000


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Channel]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, Channel(far, receive_limit_bytes=LIMIT)


def test_messages_arrive_whole_however_they_are_cut(pair: tuple[socket.socket, Channel]) -> None:
    near, channel = pair
    data = pack({"t": "a", "x": "é"}) + pack({"t": "b"})
    got = []
    for at in range(len(data)):
        near.sendall(data[at : at + 1])
        got += channel.arrived()
    assert got == [{"t": "a", "x": "é"}, {"t": "b"}]


def test_receive_waits_and_ends_with_the_stream(pair: tuple[socket.socket, Channel]) -> None:
    near, channel = pair
    near.sendall(pack({"t": "a"}))
    near.close()
    assert channel.receive() == {"t": "a"}
    assert channel.receive() is None
    assert channel.ended


def test_a_message_given_back_is_received_again(pair: tuple[socket.socket, Channel]) -> None:
    near, channel = pair
    near.sendall(pack({"t": "a"}))
    for message in channel.arrived():
        channel.give_back(message)
    assert channel.receive() == {"t": "a"}


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        framed(b"no json"),
        framed(b"[1]"),
        framed(b"{}"),
        framed(b'{"t": 1}'),
        framed(b"\xff\xfe"),
        framed(b"[" * 900),
        struct.pack(">I", LIMIT + 1),
        b"hello, world\n",
    ],
)
def test_anything_else_is_a_bad_frame(pair: tuple[socket.socket, Channel], data: bytes) -> None:
    near, channel = pair
    near.sendall(data)
    with pytest.raises(BadFrame):
        channel.arrived()


def test_what_json_cannot_say_is_not_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        pack({"t": "a", "x": float("nan")})
    assert json.loads(pack({"t": "a", "x": "\ud800"})[4:]) == {"t": "a", "x": "?"}
