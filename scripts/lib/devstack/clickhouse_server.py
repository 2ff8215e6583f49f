"""Runs ClickHouse out of libchdb.so: its exported entry point is clickhouse-local, and that
can be told to listen.

    clickhouse_server.py LIBRARY CLICKHOUSE_ARGUMENT...

Never returns while the server is well; whatever it says when it does goes to stderr.
"""

import ctypes
import sys

PR_SET_NAME = 15

# Listens, then keeps the one local query busy doing nothing for three years.
LISTEN_FOR_EVER = """
    SYSTEM START LISTEN HTTP;
    SYSTEM START LISTEN TCP;
    SELECT sleepEachRow(1) FROM system.numbers LIMIT 100000000
        SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0
        FORMAT Null
"""


class LocalResult(ctypes.Structure):
    """`struct local_result_v2` of chdb.h."""

    _fields_ = [
        ("buffer", ctypes.c_char_p),
        ("length", ctypes.c_size_t),
        ("vector", ctypes.c_void_p),
        ("elapsed", ctypes.c_double),
        ("rows_read", ctypes.c_uint64),
        ("bytes_read", ctypes.c_uint64),
        ("error_message", ctypes.c_char_p),
    ]


def main(library, arguments):
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"clickhouse")  # for `ps` and `top`
    argv = ["clickhouse", "--multiquery", *arguments, f"--query={LISTEN_FOR_EVER}"]
    encoded = [argument.encode() for argument in argv]
    run = ctypes.CDLL(library).query_stable_v2
    run.restype = ctypes.POINTER(LocalResult)
    result = run(len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
    error = result.contents.error_message if result else None
    return f"ClickHouse stopped: {error.decode() if error else 'no reason given'}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
