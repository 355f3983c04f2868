// A WebSocket over HTTP/2's extended CONNECT (RFC 8441), with node's own HTTP/2. ws_h2.mjs ADDRESS HOST CA.pem
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import http2 from "node:http2";

const [address, host, ca] = process.argv.slice(2);
const fail = (what) => { console.log(`failed: ${what}`); process.exit(1); };
setTimeout(() => fail("took too long"), 20_000);

const session = http2.connect(`https://${host}`, { host: address, port: 443, servername: host, ca: readFileSync(ca) });
session.on("error", (error) => fail(error));
await new Promise((resolve) => session.once("remoteSettings", (settings) => {
  if (!settings.enableConnectProtocol) fail("SETTINGS_ENABLE_CONNECT_PROTOCOL is not there");
  resolve();
}));

// One masked binary frame of a client (RFC 6455, 5.2).
function frame(opcode, payload) {
  const mask = randomBytes(4);
  const length = payload.length;
  const head = length < 126 ? Buffer.from([0x80 | opcode, 0x80 | length])
    : length < 65536 ? Buffer.from([0x80 | opcode, 0x80 | 126, length >> 8, length & 255])
      : Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | 127]), (() => { const eight = Buffer.alloc(8); eight.writeBigUInt64BE(BigInt(length)); return eight; })()]);
  return Buffer.concat([head, mask, payload.map((byte, at) => byte ^ mask[at & 3])]);
}

// The first frame in what has come, and how many bytes it took.
function parse(bytes) {
  if (bytes.length < 2) return null;
  let length = bytes[1] & 127, at = 2;
  if (length === 126) { if (bytes.length < 4) return null; length = bytes.readUInt16BE(2); at = 4; }
  else if (length === 127) { if (bytes.length < 10) return null; length = Number(bytes.readBigUInt64BE(2)); at = 10; }
  return bytes.length < at + length ? null : { opcode: bytes[0] & 15, payload: bytes.subarray(at, at + length), used: at + length };
}

async function once() {
  const stream = session.request({
    ":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": "/chat?room=2", ":authority": host,
    "sec-websocket-version": "13", "sec-websocket-protocol": "chat",
  });
  const headers = await new Promise((resolve) => stream.once("response", resolve));
  if (headers[":status"] !== 200) fail(`status ${headers[":status"]}`);
  if (headers["sec-websocket-protocol"] !== "chat") fail("no subprotocol");
  if ("sec-websocket-accept" in headers) fail("an accept on HTTP/2");
  let bytes = Buffer.alloc(0), waiting = null;
  stream.on("data", (data) => {
    bytes = Buffer.concat([bytes, data]);
    for (let found; waiting && (found = parse(bytes));) { bytes = bytes.subarray(found.used); const resolve = waiting; waiting = null; resolve(found); }
  });
  const next = () => new Promise((resolve) => {
    const found = parse(bytes);
    if (found) { bytes = bytes.subarray(found.used); resolve(found); } else { waiting = resolve; }
  });
  for (const length of [0, 5, 200, 70_000, 3_000_000]) {
    const message = randomBytes(length);
    stream.write(frame(2, message));
    const answer = await next();
    if (answer.opcode !== 2 || !answer.payload.equals(message)) fail(`${length} bytes came back changed`);
  }
  stream.write(frame(8, Buffer.from([3, 232])));
  const closed = await next();
  if (closed.opcode !== 8 || closed.payload.readUInt16BE(0) !== 1000) fail("no close frame");
  const ended = new Promise((resolve) => stream.once("end", resolve));
  stream.end();
  await ended;
}

await Promise.all([once(), once(), once()]);
console.log("all right");
session.close();
process.exit(0);
