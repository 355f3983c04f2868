"""Python: http.client (1.1) and httpx (2). usage: client.py VERSION CA DOWNLOAD PACKED ORIGINS TRAILERS"""

import hashlib
import http.client
import ssl
import sys
import time

VERSION, CA, DOWNLOAD, PACKED, ORIGINS, _ = sys.argv[1:]
SIZED, STREAMED = b"0123456789" * 10_000, [b"x" * (1 << 16)] * 16 + [b"x"]
TLS = ssl.create_default_context(cafile=CA)


def same(got, wanted):
    if got != wanted:
        raise ValueError(f"{str(got)[:80]!r}, not {str(wanted)[:80]!r}")


def sha256(body):
    return hashlib.sha256(body).hexdigest()


class Answer:
    """Fields by name, and pieces of the body as they come."""

    def __init__(self, status, version, fields, pieces, connection):
        same((status, version), (200, VERSION))
        self.fields, self.pieces, self.connection = fields, pieces, connection

    def read(self):
        return b"".join(self.pieces)


def pieces(answer):
    while piece := answer.read1(1 << 16):
        yield piece
    # Behind a body with a length read1 leaves this to its user.
    answer.close()


class HttpClient:
    """The library's own; of trailers it says nothing."""

    def __init__(self, origin):
        self.connection = http.client.HTTPSConnection(f"{origin}.walk.test", context=TLS, timeout=30)

    def send(self, method, path, fields, body):
        # An iterable without a length is sent in chunks.
        self.connection.request(method, path, body=body, headers=fields)
        answer = self.connection.getresponse()
        version = {11: "1.1", 10: "1.0"}[answer.version]
        local = self.connection.sock.getsockname()[1] if self.connection.sock else None
        return Answer(answer.status, version, answer.headers.get_all, pieces(answer), local)


class Httpx:
    """HTTP/2; of trailers it says nothing."""

    def __init__(self, origin):
        import httpx

        self.url = f"https://{origin}.walk.test"
        self.client = httpx.Client(http2=True, verify=TLS, timeout=30, trust_env=False)

    def send(self, method, path, fields, body):
        request = self.client.build_request(method, self.url + path, headers=fields, content=body)
        answer = self.client.send(request, stream=True)
        stream = answer.extensions["network_stream"]
        local = stream.get_extra_info("client_addr")[1]
        version = answer.http_version.removeprefix("HTTP/")
        return Answer(answer.status_code, version, answer.headers.get_list, answer.iter_raw(), local)


def visit(origin):
    client = (Httpx if VERSION == "2" else HttpClient)(origin)

    def send(method, path, fields=None, body=None):
        answer = client.send(method, path, fields or {}, body)
        same(answer.fields("x-origin"), [origin])
        return answer

    def upload(body, whole):
        same(send("POST", "/digest", body=body).read().decode(), f"{sha256(whole)} {len(whole)}")

    def events():
        text, times = b"", []
        for piece in send("GET", "/events").pieces:
            text += piece
            times.append(time.monotonic())
        same(text, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
        if times[-1] - times[0] < 0.25:
            raise ValueError("all events at once")

    def cookies():
        answer = send("GET", "/cookies")
        answer.read()
        both = [one.split(";")[0] for one in answer.fields("set-cookie")]
        same(both, ["a=1", "b=2"])
        same(send("GET", "/cookies", {"Cookie": "; ".join(both)}).read(), b"a=1; b=2")

    def reuse():
        connections = []
        for _ in range(2):
            answer = send("GET", "/text")
            connections.append(answer.connection)
            answer.read()
        same(connections[1], connections[0])

    checks = {
        "get": lambda: same(send("GET", "/text").read(), b"hello\n"),
        "head": lambda: same(send("HEAD", "/text").read(), b""),
        "post": lambda: upload(SIZED, SIZED),
        "stream": lambda: upload(iter(STREAMED), b"".join(STREAMED)),
        "download": lambda: same(sha256(send("GET", "/download").read()), DOWNLOAD),
        "packed": lambda: same(sha256(send("GET", "/packed", {"Accept-Encoding": "gzip"}).read()), PACKED),
        "events": events,
        "cookies": cookies,
        "reuse": reuse,
    }
    for name, check in checks.items():
        try:
            check()
            said = "ok"
        except Exception as error:  # Whatever a library raises is what the check found.
            said = f"{type(error).__name__} {error}".replace("\n", " ")
        print(origin, name, said, flush=True)


for one in ORIGINS.split(","):
    visit(one)
