"""Does a server truly answer? An open port is not enough: each is asked in its own protocol.

A probe returns on success and raises OSError or ValueError otherwise.
"""

import http.client
import socket
import struct

TIMEOUT_S = 2.0
HOST = "127.0.0.1"


def kafka(port):
    """A Metadata request (version 1, no topics): a broker that is registered and unfenced
    lists itself; one that only listens does not answer yet."""
    client = b"scripts/stack"
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with socket.create_connection((HOST, port), TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", _receive(connection, 4))
        _correlation, brokers = struct.unpack(">ii", _receive(connection, max(size, 8))[:8])
    if brokers < 1:
        raise ValueError("no broker is registered yet")


def nats(port):
    with socket.create_connection((HOST, port), TIMEOUT_S) as connection:
        reader = connection.makefile("rb")
        if not reader.readline().startswith(b"INFO "):
            raise ValueError("it did not introduce itself with INFO")
        connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        if reader.readline() != b"PONG\r\n":
            raise ValueError("it did not answer PING")


def clickhouse(port):
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/ping")
        if connection.getresponse().read() != b"Ok.\n":
            raise ValueError("/ping did not say Ok.")
    except http.client.HTTPException as error:
        raise ValueError(f"/ping gave no HTTP answer: {error!r}") from error
    finally:
        connection.close()


def is_free(port):
    """Whether we could listen there. SO_REUSEADDR as the servers set it: connections in
    TIME_WAIT are no obstacle."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def _receive(connection, size):
    received = b""
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ValueError("the connection was closed")
        received += chunk
    return received
