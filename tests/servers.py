"""A PostgreSQL server of our own, and a way to one that can be cut at a commit."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class PrivateServer:
    """A server that a test may stop and start; `private_server` makes one."""

    def __init__(self, folder: Path, user: str | None) -> None:
        self._folder = folder
        self._user = user
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def run(self, *command: str) -> None:
        """Run a tool of PostgreSQL as the user who owns the server."""
        prefix = ["setpriv", f"--reuid={self._user}", "--init-groups"] if self._user else []
        if self._user:
            prefix += [f"--regid={pwd.getpwnam(self._user).pw_gid}"]
        # Its files, not pipes: the server keeps them open.
        with (self._folder / "tools.log").open("ab") as log:
            subprocess.run([*prefix, *command], check=True, stdout=log, stderr=log, cwd="/")

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self._folder / "server.log")
        self.run(
            "pg_ctl", "-D", str(self._folder / "data"), "-w", "-l", log, "-o", options, "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: immediate = as if it crashed, fast = connections are cut in an orderly way."""
        self.run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-m", mode, "stop")


@contextmanager
def private_server() -> Iterator[PrivateServer]:
    """A running server with nothing in it, gone in the end; skips where there can be none."""
    if not shutil.which("initdb") or not shutil.which("pg_ctl"):
        pytest.skip("no initdb and pg_ctl on the path to start a PostgreSQL server with")
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = next((u.pw_name for u in pwd.getpwall() if u.pw_name == "postgres"), None)
        if user is None or not shutil.which("setpriv"):
            pytest.skip("no user `postgres`, or no setpriv, to start a server with as root")
    folder = Path(tempfile.mkdtemp(prefix="naslite-pg-"))
    try:
        server = PrivateServer(folder, user)
        if user is not None:
            shutil.chown(folder, user)
            (folder / "tools.log").touch()
        data = str(folder / "data")
        server.run("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            with suppress(subprocess.CalledProcessError):
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class CommitCutter:
    """Stands between a client and a PostgreSQL server, and cuts the line at a commit.

    Args:
        answered: The server has committed when the line is cut, and its answer is lost; else the
            commit does not reach it.
    """

    def __init__(self, host: str, port: int, *, answered: bool) -> None:
        self.armed = False
        self.cuts = 0
        self._target = (host, port)
        self._answered = answered
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pump, args=(source, sink, sink is server), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, to_server: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if to_server and self.armed and b"COMMIT" in data:
                    self.armed = False
                    self.cuts += 1
                    self._cut(source, sink, data)
                    return
                sink.sendall(data)
        _close(source, sink)

    def _cut(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        if self._answered:
            # Nobody answers the client from here on; the server's end shows that it is done.
            client.shutdown(socket.SHUT_RDWR)
            server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                while server.recv(65536):
                    pass
        _close(client, server)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
