"""Messages between a pool and a worker: bytes of any length over a stream socket."""

from __future__ import annotations

import socket
import struct

HEADER = struct.Struct("!Q")  # the length of the message that follows
READ_BYTES = 1 << 20
MOST_BYTES = 1 << 40  # of a message; a longer one is a length that was never written
READS = 64  # in a row, so that one talkative worker cannot hold the pool


class Damaged(Exception):
    """What came from the other end is no message: its process has damaged its own memory."""


class Channel:
    """The pool's end: it never blocks, whatever state the worker at the other end is in."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.is_closed = False  # by the other end
        self._connection = connection
        self._inbox = bytearray()
        self._outbox = bytearray()

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def has_unsent(self) -> bool:
        return bool(self._outbox)

    @property
    def has_partial(self) -> bool:
        """Whether a message is on its way here."""
        return bool(self._inbox)

    def send(self, message: bytes) -> None:
        """Send a message; what the socket does not take now is sent by later `flush`es."""
        self._outbox += HEADER.pack(len(message)) + message
        self.flush()

    def flush(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: self._connection.send(self._outbox)]
        except BlockingIOError:
            return
        except OSError:  # nobody reads it any more; `receive` tells
            self._outbox.clear()

    def receive(self) -> list[bytes]:
        """The messages that have arrived whole.

        Raises:
            Damaged: What has arrived is none.
        """
        for _ in range(READS):
            try:
                read = self._connection.recv(READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                read = b""
            if not read:
                self.is_closed = True
                break
            self._inbox += read
        return self._whole()

    def close(self) -> None:
        self._connection.close()

    def _whole(self) -> list[bytes]:
        messages: list[bytes] = []
        start = 0
        while len(self._inbox) >= start + HEADER.size:
            (length,) = HEADER.unpack_from(self._inbox, start)
            if length > MOST_BYTES and messages:
                break  # what came before it counts
            if length > MOST_BYTES:
                raise Damaged(f"a message of {length} bytes")
            end = start + HEADER.size + length
            if len(self._inbox) < end:
                break
            messages.append(bytes(self._inbox[start + HEADER.size : end]))
            start = end
        del self._inbox[:start]
        return messages


class BlockingChannel:
    """The worker's end: it waits."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        self._connection = connection
        self._reader = connection.makefile("rb")

    def send(self, message: bytes) -> None:
        self._connection.sendall(HEADER.pack(len(message)) + message)

    def receive(self) -> bytes:
        """The next message.

        Raises:
            EOFError: The other end is closed.
        """
        (length,) = HEADER.unpack(self._read(HEADER.size))
        return self._read(length)

    def close(self) -> None:
        self._reader.close()
        self._connection.close()

    def _read(self, size: int) -> bytes:
        read = self._reader.read(size)
        if len(read) < size:
            raise EOFError("the pool has closed the connection")
        return read
