"""A relay to PostgreSQL on a host of the test's net: `python relay.py --listen H:P --to SOCKET`.

The server itself listens on a Unix socket, which all namespaces of a machine share.
"""

import argparse
import asyncio
import json
from contextlib import suppress

CHUNK_BYTES = 65536


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(host: str, port: int, place: str) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(place)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    async with await asyncio.start_server(relay, host, port) as server:
        print(json.dumps({"address": f"{host}:{port}"}), flush=True)
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--to", required=True)
    given = parser.parse_args()
    host, _, port = given.listen.rpartition(":")
    asyncio.run(serve(host, int(port), given.to))


if __name__ == "__main__":
    main()
