"""An origin that writes down every request http.server gave it. usage: python.py ADDRESS PORT LOG"""

import hashlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, PORT, LOG = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def note(*words):
    with open(LOG, "a", encoding="latin-1") as log:
        log.write(" ".join(str(word) for word in words) + "\n")


class Recorder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def exactly(self, length):
        body = self.rfile.read(length)
        if len(body) != length:
            raise EOFError
        return body

    def chunks(self):
        """http.server leaves chunks to its user: this is the strictest reading of them."""
        body = b""
        while True:
            line = self.rfile.readline(8192)
            if not line.endswith(b"\r\n"):
                raise EOFError
            size = int(line.split(b";")[0].strip(), 16)
            if size == 0:
                while self.rfile.readline(8192) not in (b"\r\n", b""):
                    pass
                return body
            body += self.exactly(size)
            if self.exactly(2) != b"\r\n":
                raise EOFError

    def record(self):
        body, state = b"", "whole"
        try:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                body = self.chunks()
            else:
                body = self.exactly(int(self.headers.get("Content-Length") or 0))
        except (EOFError, ValueError, OSError):
            state, self.close_connection = "broken", True
        sha1 = hashlib.sha1(body).hexdigest()
        host, smuggled = self.headers.get("Host", "-"), self.headers.get("X-Smuggled", "-")
        note(self.command, self.path, host, len(body), sha1, state, smuggled)
        if state == "whole":
            answer = f"{self.path}\n".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = record

    def log_error(self, *_words):
        note("-", "-", "-", 0, "-", "refused", "-")

    def log_message(self, *_words):
        pass


ThreadingHTTPServer((ADDRESS, PORT), Recorder).serve_forever()
