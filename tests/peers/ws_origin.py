"""A WebSocket origin over TLS (PyPI websockets): sends back what it gets. ws_origin.py ADDRESS PORT PAIR.pem"""

import asyncio
import ssl
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        if message == "leave":
            await connection.close(4321, "as you wish")
            return
        await connection.send(message)


def chosen(_, offered):
    """The library's own choice refuses clients that offer no subprotocol at all."""
    return "chat" if "chat" in offered else None


async def main(address, port, pair):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair)
    options = {"subprotocols": ["chat"], "select_subprotocol": chosen, "max_size": None, "ping_interval": None}
    async with serve(echo, address, int(port), ssl=tls, **options):
        print("listening", flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main(*sys.argv[1:]))
