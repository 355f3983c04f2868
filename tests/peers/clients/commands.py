"""curl and nghttp. usage: commands.py curl|nghttp VERSION CA DOWNLOAD PACKED ORIGINS TRAILERS"""

import hashlib
import subprocess
import sys
import time

PROGRAM, VERSION, CA, DOWNLOAD, PACKED, ORIGINS, TRAILERS = sys.argv[1:]
SIZED, STREAMED = b"0123456789" * 10_000, b"x" * ((1 << 20) + 1)
CURL = ["curl", "-sS", "--max-time", "30", "--cacert", CA, "--http1.1" if VERSION == "1.1" else "--http2", "-D", "head"]
# Verifies by SSL_CERT_FILE, and goes on with a warning where it cannot.
NGHTTP = ["nghttp", "-t", "30"]


def same(got, wanted):
    if got != wanted:
        raise ValueError(f"{str(got)[:80]!r}, not {str(wanted)[:80]!r}")


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def run(*words, given=None):
    done = subprocess.run(words, input=given, capture_output=True)
    if done.returncode or b"[WARNING]" in done.stderr + done.stdout[:200]:
        raise ValueError(f"{done.returncode}: {(done.stderr + done.stdout[:200]).decode(errors='replace')}")
    return done.stdout


def curl(origin):
    url = f"https://{origin}.walk.test"

    def send(path, *words, given=None):
        """The body; what is right of every answer is checked."""
        body = run(*CURL, *words, url + path, given=given)
        with open("head", encoding="latin-1") as file:
            # Of several answers (100 Continue) the last; behind it trailers.
            text = "\n" + file.read().lower().replace("\r", "")
        final = text[text.rindex("\nhttp/"):]
        same(final.split()[:2], ["http/" + VERSION, "200"])
        same(f"\nx-origin: {origin}\n" in final, True)
        return body, text

    def upload(body, *words):
        same(send("/digest", *words, given=body)[0].decode(), f"{sha256(body)} {len(body)}")

    def events():
        begin = time.monotonic()
        done = subprocess.Popen([*CURL, "-N", url + "/events"], stdout=subprocess.PIPE)
        first, at = done.stdout.readline(), time.monotonic()
        same(first + done.stdout.read(), b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
        if done.wait() or time.monotonic() - at < 0.25:
            raise ValueError(f"{done.returncode}, all events at once, {at - begin} s after the request")

    def cookies():
        _, head = send("/cookies", "-c", "jar")
        same(head.count("set-cookie: "), 2)
        both = send("/cookies", "-b", "jar")[0].decode().split("; ")
        same(sorted(both), ["a=1", "b=2"])

    def trailers():
        body, head = send("/trailers", "-H", "TE: trailers")
        same((body, "x-trailer: end" in head), (b"body\n", True))

    def reuse():
        words = ["-o", "/dev/null", "-w", "%{num_connects} "]
        same(run(*CURL, *words, url + "/text", *words, url + "/text").decode(), "1 0 ")

    plain = ["-H", "Content-Type: application/octet-stream"]
    return {
        "get": lambda: same(send("/text")[0], b"hello\n"),
        "head": lambda: same(send("/text", "-I")[0].lower().startswith(b"http/"), True),
        "post": lambda: upload(SIZED, *plain, "--data-binary", "@-"),
        "stream": lambda: upload(STREAMED, *plain, "-X", "POST", "-T", "-"),
        "download": lambda: same(sha256(send("/download")[0]), DOWNLOAD),
        "packed": lambda: same(sha256(send("/packed", "-H", "Accept-Encoding: gzip")[0]), PACKED),
        "events": events,
        "cookies": cookies,
        "trailers": trailers,
        "reuse": reuse,
    }


def nghttp(origin):
    url = f"https://{origin}.walk.test"

    def send(path, *words):
        return run(*NGHTTP, *words, url + path)

    def seen(*words, paths=("/text",)):
        """What came, in nghttp's words, one frame after another."""
        return run(*NGHTTP, "-nv", "--no-dep", *words, *(url + path for path in paths)).decode(errors="replace")

    def has(text, *parts):
        for part in parts:
            same(part in text, True)

    def head():
        text = seen("-H", ":method: HEAD")
        has(text, ":status: 200", f"x-origin: {origin}")
        same("recv DATA" in text, False)

    def upload(body):
        with open("body", "wb") as file:
            file.write(body)
        # nghttp gives a length itself, unless it is told not to.
        return send("/digest", "-d", "body").decode(), f"{sha256(body)} {len(body)}"

    def stream():
        with open("body", "wb") as file:
            file.write(STREAMED)
        same(send("/digest", "-d", "body", "--no-content-length").decode(), f"{sha256(STREAMED)} {len(STREAMED)}")

    def cookies():
        # As two fields, as HTTP/2 allows; nghttp's -v shows what came back.
        has(seen(paths=["/cookies"]), "set-cookie: a=1", "set-cookie: b=2")
        same(send("/cookies", "-H", "cookie: a=1", "-H", "cookie: b=2"), b"a=1; b=2")

    return {
        "get": lambda: same(send("/text"), b"hello\n"),
        "head": head,
        "post": lambda: same(*upload(SIZED)),
        "stream": stream,
        "download": lambda: same(sha256(send("/download")), DOWNLOAD),
        # nghttp unpacks by itself.
        "packed": lambda: same(send("/packed"), b"packed\n" * 1000),
        "cookies": cookies,
        "trailers": lambda: has(seen("-H", "te: trailers", paths=["/trailers"]), "x-trailer: end"),
        "reuse": lambda: same(seen(paths=["/text", "/text?again"]).count("Connected"), 1),
    }


for one in ORIGINS.split(","):
    for name, check in {"curl": curl, "nghttp": nghttp}[PROGRAM](one).items():
        if name == "trailers" and one not in TRAILERS.split(","):
            continue
        try:
            check()
            said = "ok"
        except Exception as error:  # Whatever goes wrong is what the check found.
            said = f"{type(error).__name__} {error}".replace("\n", " ")
        print(one, name, said, flush=True)
