// An origin that writes down every request Node's own parser gave it. usage: node node.mjs ADDRESS PORT LOG
import { createHash } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';

const [address, port, log] = process.argv.slice(2);
const note = (...words) => appendFileSync(log, words.join(' ') + '\n');

const server = createServer((request, response) => {
  const pieces = [];
  const say = (state) => {
    const body = Buffer.concat(pieces);
    const sha1 = createHash('sha1').update(body).digest('hex');
    const { method, url, headers } = request;
    note(method, url, headers.host ?? '-', body.length, sha1, state, headers['x-smuggled'] ?? '-');
  };
  request.on('data', (piece) => pieces.push(piece));
  request.on('error', () => say('broken'));
  request.on('end', () => {
    say('whole');
    response.setHeader('Content-Type', 'text/plain');
    response.end(`${request.url}\n`);
  });
});
server.on('clientError', (error, socket) => {
  // A connection that ends early is no request; anything else the parser refuses is worth a line.
  if (String(error.code).startsWith('HPE_') && error.code !== 'HPE_INVALID_EOF_STATE') note('-', '-', '-', 0, '-', error.code, '-');
  socket.destroy();
});
server.keepAliveTimeout = 60000;
server.listen(Number(port), address);
