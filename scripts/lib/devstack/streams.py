"""Makes a stream in JetStream, by the text protocol: no client library is needed for that."""

import json
import socket

from devstack import probes
from devstack.problem import Problem

INBOX = "_INBOX.scripts-stack"


def create(port, name, subjects):
    """Makes it, or makes one that is there take these subjects; its records stay."""
    config = {"name": name, "subjects": subjects, "storage": "file", "retention": "limits"}
    answer = _ask(port, f"$JS.API.STREAM.CREATE.{name}", config)
    if answer.get("error", {}).get("err_code") == 10058:  # there is one, and it is different
        answer = _ask(port, f"$JS.API.STREAM.UPDATE.{name}", config)
    if "error" in answer:
        raise Problem(f"stream {name}: {answer['error'].get('description')}")


def _ask(port, subject, question):
    body = json.dumps(question).encode()
    with socket.create_connection((probes.HOST, port), probes.TIMEOUT_S) as connection:
        reader = connection.makefile("rb")
        reader.readline()  # INFO
        connection.sendall(
            b'CONNECT {"verbose":false}\r\n'
            + f"SUB {INBOX} 1\r\nPUB {subject} {INBOX} {len(body)}\r\n".encode()
            + body
            + b"\r\n"
        )
        while line := reader.readline():
            if line.startswith(b"MSG "):
                return json.loads(reader.read(int(line.split()[-1])))
            if line.startswith(b"-ERR"):
                raise Problem(f"NATS: {line.decode().strip()}")
    raise Problem("NATS closed the connection")
