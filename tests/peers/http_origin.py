"""An HTTP/1.1 origin over TLS that does by hand what its path says. http_origin.py ADDRESS PORT PAIR.pem"""

import asyncio
import ssl
import sys
import time


async def head(reader):
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = text.strip("\r\n").split("\r\n")
    return line.split(" "), {name.lower(): value.strip() for name, value in (field.split(":", 1) for field in fields)}


async def body(reader, fields):
    """How many bytes, and the trailers."""
    if "content-length" in fields:
        left = total = int(fields["content-length"])
        while left:
            left -= len(await reader.read(min(left, 1 << 20)))
        return total, {}
    if "transfer-encoding" not in fields:
        return 0, {}
    total = 0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        total += len(await reader.readexactly(size))
        await reader.readexactly(2)
    lines = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        lines.append(line.decode().strip().split(": ", 1))
    return total, {name.lower(): value for name, value in lines}


def plain(writer, text, status="200 OK"):
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())


async def answer(reader, writer, method, target, fields):
    path, _, number = target.partition("?")
    if path == "/hints":
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        await asyncio.sleep(0.2)
        plain(writer, "hinted")
    elif path == "/events":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(int(number)):
            event = f"data: {time.time()}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.4)
        writer.write(b"0\r\n\r\n")
    elif path == "/download":
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n".encode())
        left, piece = int(number), bytes(1 << 20)
        while left:
            writer.write(piece[: min(left, len(piece))])
            left -= min(left, len(piece))
            await writer.drain()
    elif path == "/early":
        plain(writer, "not you", "401 Unauthorized")
        return False
    elif path == "/trailers":
        count, trailers = await body(reader, fields)
        said = trailers.get("x-up", "nothing")
        head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Down\r\n\r\n"
        writer.write(f"{head}{len(str(count)):x}\r\n{count}\r\n0\r\nX-Down: {said}\r\n\r\n".encode())
    else:
        if fields.get("expect") == "100-continue":
            await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        count, _ = await body(reader, fields)
        text = f"{method} {target} {count} te={fields.get('te')} cookie={fields.get('cookie')}\n"
        if method == "HEAD":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n".encode())
        else:
            plain(writer, text)
    await writer.drain()
    return True


async def serve(reader, writer):
    try:
        while True:
            (method, target, _), fields = await head(reader)
            if not await answer(reader, writer, method, target, fields):
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def main(address, port, pair):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair)
    server = await asyncio.start_server(serve, address, int(port), ssl=tls, limit=1 << 22)
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
