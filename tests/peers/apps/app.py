"""The application of README.md under http.server. usage: app.py ADDRESS PORT DIRECTORY"""

import hashlib
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, PORT, DIRECTORY = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def head(self, *fields, kind="text/plain"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("X-Origin", "python")
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()

    def whole(self, body, *fields, **more):
        self.head(("Content-Length", len(body)), *fields, **more)
        if self.command != "HEAD":
            self.wfile.write(body)

    def file(self, name, *fields):
        with open(f"{DIRECTORY}/{name}", "rb") as file:
            self.whole(file.read(), *fields, kind="application/octet-stream")

    def chunk(self, text):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))

    def pieces(self):
        """http.server leaves the framing of bodies to its user."""
        if "Transfer-Encoding" not in self.headers:
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b""):
            pass

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/text":
            self.whole(b"hello\n")
        elif path == "/download":
            self.file("download")
        elif path == "/packed":
            self.file("packed", ("Content-Encoding", "gzip"))
        elif path == "/cookies":
            cookies = (("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Path=/; HttpOnly"))
            self.whole(self.headers.get("Cookie", "").encode(), *cookies)
        elif path == "/events":
            self.head(("Transfer-Encoding", "chunked"), kind="text/event-stream")
            for number in range(3):
                time.sleep(0.2 if number else 0)
                self.chunk(b"data: %d\n\n" % number)
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/trailers":
            self.head(("Transfer-Encoding", "chunked"), ("Trailer", "X-Trailer"))
            self.chunk(b"body\n")
            self.wfile.write(b"0\r\nX-Trailer: end\r\n\r\n")
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def do_POST(self):
        digest, length = hashlib.sha256(), 0
        for piece in self.pieces():
            digest.update(piece)
            length += len(piece)
        self.whole(f"{digest.hexdigest()} {length}".encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer((ADDRESS, PORT), App).serve_forever()
