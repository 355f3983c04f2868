// The application of README.md on Node's own http. usage: node app.mjs ADDRESS PORT DIRECTORY
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

const [address, port, directory] = process.argv.slice(2);

const pages = {
  '/text': (request, response) => response.end('hello\n'),
  '/download': (request, response) => file(response, 'download'),
  '/packed': (request, response) => {
    response.setHeader('Content-Encoding', 'gzip');
    file(response, 'packed');
  },
  '/cookies': (request, response) => {
    response.setHeader('Set-Cookie', ['a=1; Path=/', 'b=2; Path=/; HttpOnly']);
    response.end(request.headers.cookie ?? '');
  },
  '/digest': async (request, response) => {
    const hash = createHash('sha256');
    let length = 0;
    for await (const piece of request) {
      hash.update(piece);
      length += piece.length;
    }
    response.end(`${hash.digest('hex')} ${length}`);
  },
  '/events': async (request, response) => {
    response.setHeader('Content-Type', 'text/event-stream');
    for (let number = 0; number < 3; number++) {
      if (number) await pause(200);
      response.write(`data: ${number}\n\n`);
    }
    response.end();
  },
  '/trailers': (request, response) => {
    response.setHeader('Trailer', 'X-Trailer');
    response.write('body\n');
    response.addTrailers({ 'X-Trailer': 'end' });
    response.end();
  },
};

function file(response, name) {
  const body = readFileSync(`${directory}/${name}`);
  response.setHeader('Content-Type', 'application/octet-stream');
  response.setHeader('Content-Length', body.length);
  response.end(body);
}

const server = createServer((request, response) => {
  response.setHeader('X-Origin', 'node');
  response.setHeader('Content-Type', 'text/plain');
  const page = pages[request.url.split('?')[0]];
  if (page) page(request, response);
  else response.writeHead(404).end();
});
server.keepAliveTimeout = 60000;
server.listen(Number(port), address);
