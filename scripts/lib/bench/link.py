"""A slow link: hands on what comes at one address to another, at so many bytes a second.

Run by itself (`python3 -m bench.link PORT UPSTREAM BYTES_PER_S`), so that what it costs is on
nobody's account. Only what goes to the server is slowed: that is what inserts are made of.
"""

import asyncio
import sys
import time

PIECE = 64 * 1024


class Pace:
    """Of all connections together."""

    def __init__(self, bytes_per_s):
        self._bytes_per_s = bytes_per_s
        self._free_at = time.monotonic()

    async def wait(self, count):
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + count / self._bytes_per_s
        await asyncio.sleep(self._free_at - now)


async def _serve(port, upstream, pace):
    host, _, number = upstream.rpartition(":")

    async def hand_on(reader, writer):
        try:
            to_reader, to_writer = await asyncio.open_connection(host, int(number))
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, to_writer, pace), _copy(to_reader, writer, None))

    server = await asyncio.start_server(hand_on, "127.0.0.1", port, limit=PIECE)
    async with server:
        await server.serve_forever()


async def _copy(reader, writer, pace):
    try:
        while piece := await reader.read(PIECE):
            if pace:
                await pace.wait(len(piece))
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass  # the other end is gone, and with it this one
    finally:
        writer.close()


if __name__ == "__main__":
    listen, to, speed = sys.argv[1:]
    asyncio.run(_serve(int(listen), to, Pace(float(speed))))
