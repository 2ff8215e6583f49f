"""Watches a topic of the live feed: python3 live.py [ws://localhost:8080/ws] [candles] [COUNT]"""

import asyncio
import itertools
import json
import sys

from websockets.asyncio.client import connect


async def watch(url: str, topic: str, count: int | None) -> None:
    async with connect(url) as socket:
        await socket.send(json.dumps({"type": "subscribe", "topic": topic, "last_n": 10}))
        seen = itertools.count(1)
        async for text in socket:
            message = json.loads(text)
            print(json.dumps(message), flush=True)
            if message["type"] == "event" and next(seen) == count:
                return


arguments = dict(enumerate(sys.argv[1:]))
url, topic = arguments.get(0, "ws://localhost:8080/ws"), arguments.get(1, "candles")
asyncio.run(watch(url, topic, int(arguments[2]) if 2 in arguments else None))
