"""Messages arrive whole and in order, however they are cut on their way."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.channel import HEADER, BlockingChannel, Channel, Damaged
from search.protocol import SHAPES, answer, heard

MESSAGES = st.lists(st.binary(max_size=300), max_size=8)


@pytest.fixture
def pair():
    with _pair() as both:
        yield both


@contextlib.contextmanager
def _pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@settings(deadline=None)
@given(messages=MESSAGES, cuts=st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_messages_arrive_whole_however_they_are_cut(messages, cuts):
    stream = b"".join(HEADER.pack(len(message)) + message for message in messages)
    arrived = []
    with _pair() as (ours, theirs):
        channel = Channel(ours)
        for cut in cuts:
            part, stream = stream[:cut], stream[cut:]
            theirs.sendall(part)
            arrived += channel.receive()
            assert arrived == messages[: len(arrived)]
        theirs.sendall(stream)
        arrived += channel.receive()
        assert arrived == messages
        assert not channel.has_partial
        assert not channel.is_closed


@settings(deadline=None)
@given(messages=MESSAGES)
def test_what_one_end_sends_the_other_reads(messages):
    with _pair() as (ours, theirs):
        channel, blocking = Channel(ours), BlockingChannel(theirs)
        for message in messages:
            channel.send(message)
        assert [blocking.receive() for _ in messages] == messages
        for message in messages:
            blocking.send(message)
        assert channel.receive() == messages
        blocking.close()


def test_sending_more_than_a_socket_holds_does_not_block(pair):
    ours, theirs = pair
    channel, blocking = Channel(ours), BlockingChannel(theirs)
    message = bytes(range(256)) * 20_000
    channel.send(message)
    assert channel.has_unsent
    read = []
    reader = threading.Thread(target=lambda: read.append(blocking.receive()))
    reader.start()
    while channel.has_unsent:
        channel.flush()
    reader.join()
    assert read == [message]
    blocking.close()


def test_what_came_before_the_end_is_read(pair):
    ours, theirs = pair
    channel = Channel(ours)
    theirs.sendall(HEADER.pack(3) + b"one" + HEADER.pack(3) + b"tw")
    theirs.close()
    assert channel.receive() == [b"one"]
    assert channel.is_closed
    channel.send(b"nobody reads this")
    assert not channel.has_unsent


def test_the_worker_is_told_of_the_end(pair):
    ours, theirs = pair
    blocking = BlockingChannel(theirs)
    ours.close()
    with pytest.raises(EOFError, match="closed the connection"):
        blocking.receive()
    blocking.close()


def test_a_length_that_nobody_has_written_is_damage(pair):
    ours, theirs = pair
    channel = Channel(ours)
    theirs.sendall(HEADER.pack(2) + b"ok" + HEADER.pack(2**63) + b"...")
    assert channel.receive() == [b"ok"]
    for _ in range(2):
        with pytest.raises(Damaged):
            channel.receive()


SAID = st.sampled_from(
    [
        ("ready", None),
        ("broken", ("ValueError: no", False)),
        ("stage", ("export", ())),
        ("epoch", (2, 6, 0.75)),
        ("epoch", (2, 6, None)),
        ("returned", ({"a": 1}, 0.5)),
        ("raised", ("ValueError: no", 0.5, False)),
    ]
)


@settings(deadline=None)
@given(said=SAID, flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255))))
def test_what_a_worker_says_is_heard_or_is_damage(said, flips):
    message = bytearray(answer(*said))
    for place, change in flips:
        message[place % len(message)] ^= change
    try:
        kind, content = heard(bytes(message))
    except Damaged:
        assert flips
        return
    assert kind in SHAPES
    assert isinstance(content, tuple) or kind == "ready"
    if not flips:
        assert (kind, content) == said
