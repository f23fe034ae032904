"""A small rosbridge server: who published, and who subscribed; JSON as it comes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from typing import Any

from websockets.asyncio.server import serve


async def main(port: int) -> None:
    readers: dict[str, set[Any]] = defaultdict(set)

    async def talk(client: Any) -> None:
        advertised = set()
        try:
            async for text in client:
                said = json.loads(text)
                topic = said.get("topic")
                if said["op"] == "subscribe":
                    readers[topic].add(client)
                elif said["op"] == "unsubscribe":
                    readers[topic].discard(client)
                elif said["op"] == "advertise":
                    advertised.add(topic)
                elif said["op"] == "publish" and topic in advertised:
                    for reader in list(readers[topic]):
                        await reader.send(text)
        finally:
            for each in readers.values():
                each.discard(client)

    async with serve(talk, "127.0.0.1", port, max_size=50_000_000, compression=None):
        print("ready", flush=True)
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
