"""A WebSocket client (PyPI websockets). ws_client.py ADDRESS HOST CA.pem all|hold

all: messages of every length's form, a ping, a close with a code from the origin's side.
hold: a message every 100 ms until the connection ends; says how many came back."""

import asyncio
import os
import ssl
import sys

import websockets
from websockets.asyncio.client import connect


async def everything(connection):
    assert connection.subprotocol == "chat", connection.subprotocol
    for length in [0, 1, 125, 126, 65535, 65536, 1 << 20, 5 << 20]:
        for message in [os.urandom(length), "é" * (length // 2)]:
            await connection.send(message)
            answer = await connection.recv()
            assert answer == message, f"{length}: another message came back"
    await asyncio.gather(*[connection.send(str(at)) for at in range(1000)])
    for at in range(1000):
        assert await connection.recv() == str(at)
    await asyncio.wait_for(await connection.ping(), 5)
    await connection.send("leave")
    try:
        await connection.recv()
        raise AssertionError("the origin did not close")
    except websockets.ConnectionClosed as closed:
        assert (closed.rcvd.code, closed.rcvd.reason) == (4321, "as you wish"), closed
    print("all right", flush=True)


async def hold(connection):
    count = 0
    try:
        while True:
            await connection.send(str(count))
            assert await connection.recv() == str(count)
            count += 1
            print(count, flush=True)
            await asyncio.sleep(0.1)
    except websockets.ConnectionClosed as closed:
        print(f"ended after {count}: {closed.rcvd}", flush=True)


async def main(address, host, ca, what):
    tls = ssl.create_default_context(cafile=ca)
    async with connect(
        f"wss://{host}/chat?room=1", host=address, port=443, ssl=tls, subprotocols=["chat"], max_size=None, ping_interval=None
    ) as connection:
        await {"all": everything, "hold": hold}[what](connection)


asyncio.run(main(*sys.argv[1:]))
