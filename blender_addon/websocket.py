# SPDX-License-Identifier: GPL-3.0-or-later
"""A WebSocket to listen to (RFC 6455, the client's side). Knows no bpy."""

from __future__ import annotations

import base64
import os
import socket
import struct
import time

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
ZERO_MASK = b"\0\0\0\0"  # a client must mask; what the mask is matters to nobody here


class WebSocket:
    """Opens at once. Raises OSError where the server does not answer as it should.

    timeout : seconds for the handshake
    """

    def __init__(self, host: str, port: int, path: str, secure: bool = False, timeout: float = 10.0) -> None:
        self._socket = socket.create_connection((host, port), timeout)
        self._buffer = bytearray()
        self._whole = bytearray()  # the frames so far of a message in several
        self._kind = TEXT
        try:
            if secure:
                import ssl  # not every Blender's Python has it

                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
            self._shake_hands(f"{host}:{port}", path)
        except BaseException:
            self._socket.close()
            raise

    def _shake_hands(self, host: str, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if head.split(b" ")[1:2] != [b"101"]:
            raise OSError(f"no WebSocket there: {head.splitlines()[0].decode(errors='replace')}")
        self._buffer = bytearray(rest)

    def receive(self, seconds: float) -> tuple[int, bytes] | None:
        """The next message, (TEXT or BINARY, its bytes), or None where none came in time. Raises OSError at the end."""
        deadline = time.monotonic() + seconds
        while True:
            while (frame := self._take_frame()) is not None:
                final, kind, data = frame
                if kind == CLOSE:
                    raise OSError("the server closed the connection")
                if kind == PING:
                    self._socket.sendall(struct.pack("!BB", 0x80 | PONG, 0x80 | len(data)) + ZERO_MASK + data)
                elif kind != PONG:
                    self._kind = kind or self._kind  # 0 goes on with the last
                    self._whole += data
                    if final:
                        message, self._whole = bytes(self._whole), bytearray()
                        return self._kind, message
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                self._fill()
            except TimeoutError:
                return None

    def close(self) -> None:
        self._socket.close()

    def _fill(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise OSError("the server closed the connection")
        self._buffer += data

    def _take_frame(self) -> tuple[bool, int, bytes] | None:
        """(last of its message, kind, data) once it is all in the buffer."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 0x7F, 2
        if length >= 126:
            form, start = ("!H", 4) if length == 126 else ("!Q", 10)
            if len(buffer) < start:
                return None
            length = struct.unpack_from(form, buffer, 2)[0]
        if len(buffer) < start + length:
            return None
        final, kind, data = bool(buffer[0] & 0x80), buffer[0] & 0x0F, bytes(buffer[start : start + length])
        del buffer[: start + length]
        return final, kind, data
