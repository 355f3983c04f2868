// Node's own clients, https and http2. usage: node client.mjs VERSION CA DOWNLOAD PACKED ORIGINS TRAILERS
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import https from 'node:https';

const [version, caFile, download, packed, origins, trailers] = process.argv.slice(2);
const ca = readFileSync(caFile);
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

function same(got, wanted) {
  if (got !== wanted) throw new Error(`${JSON.stringify(got).slice(0, 80)}, not ${JSON.stringify(wanted).slice(0, 80)}`);
}

// Both give: fields, a stream to read, its trailers behind its end, and what names the connection.
class Http1 {
  constructor(origin) {
    this.host = `${origin}.walk.test`;
    this.agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca });
  }
  async send(method, path, fields, pieces) {
    const request = https.request({ agent: this.agent, host: this.host, method, path, headers: fields });
    for (const piece of pieces) request.write(piece);
    request.end();
    const [response] = await once(request, 'response');
    same(response.httpVersion, '1.1');
    return { status: response.statusCode, fields: response.headers, stream: response, trailers: () => response.trailers, connection: response.socket.localPort };
  }
  close() { this.agent.destroy(); }
}

class Http2 {
  constructor(origin) {
    this.session = http2.connect(`https://${origin}.walk.test`, { ca });
  }
  async send(method, path, fields, pieces) {
    const stream = this.session.request({ ':method': method, ':path': path, ...fields }, { endStream: pieces.length === 0 });
    let trailers = {};
    stream.on('trailers', (fields) => { trailers = fields; });
    for (const piece of pieces) stream.write(piece);
    if (pieces.length) stream.end();
    const [answer] = await once(stream, 'response');
    return { status: answer[':status'], fields: answer, stream, trailers: () => trailers, connection: this.session.socket.localPort };
  }
  close() { this.session.close(); }
}

async function visit(origin) {
  const client = version === '2' ? new Http2(origin) : new Http1(origin);
  const send = async (method, path, fields = {}, pieces = []) => {
    const answer = await client.send(method, path, fields, pieces);
    same(answer.status, 200);
    same(answer.fields['x-origin'], origin);
    return answer;
  };
  const read = async (answer) => {
    const pieces = [];
    for await (const piece of answer.stream) pieces.push(piece);
    return Buffer.concat(pieces);
  };
  const get = async (path, fields) => read(await send('GET', path, fields));
  const upload = async (pieces, fields) => {
    const body = Buffer.concat(pieces);
    same(String(await read(await send('POST', '/digest', fields, pieces))), `${sha256(body)} ${body.length}`);
  };
  const sized = Buffer.from('0123456789'.repeat(10_000));
  const streamed = [...Array(16).fill(Buffer.alloc(1 << 16, 'x')), Buffer.from('x')];
  const checks = {
    get: async () => same(String(await get('/text')), 'hello\n'),
    head: async () => same(String(await read(await send('HEAD', '/text'))), ''),
    post: () => upload([sized], { 'content-length': sized.length }),
    stream: () => upload(streamed, {}),
    download: async () => same(sha256(await get('/download')), download),
    packed: async () => same(sha256(await get('/packed', { 'accept-encoding': 'gzip' })), packed),
    events: async () => {
      const answer = await send('GET', '/events');
      const times = [];
      let text = '';
      for await (const piece of answer.stream) {
        text += piece;
        times.push(performance.now());
      }
      same(text, 'data: 0\n\ndata: 1\n\ndata: 2\n\n');
      if (times.at(-1) - times[0] < 250) throw new Error('all events at once');
    },
    cookies: async () => {
      const answer = await send('GET', '/cookies');
      await read(answer);
      const set = answer.fields['set-cookie'];
      same(set?.length, 2);
      same(String(await get('/cookies', { cookie: set.map((one) => one.split(';')[0]).join('; ') })), 'a=1; b=2');
    },
    trailers: async () => {
      const answer = await send('GET', '/trailers', { te: 'trailers' });
      same(String(await read(answer)), 'body\n');
      same(answer.trailers()['x-trailer'], 'end');
    },
    reuse: async () => {
      const connections = [];
      for (let time = 0; time < 2; time++) {
        const answer = await send('GET', '/text');
        connections.push(answer.connection);
        await read(answer);
      }
      same(connections[1], connections[0]);
    },
  };
  for (const [name, check] of Object.entries(checks)) {
    if (name === 'trailers' && !trailers.split(',').includes(origin)) continue;
    const said = await check().then(() => 'ok', (error) => String(error.message).replaceAll('\n', ' '));
    console.log(origin, name, said);
  }
  client.close();
}

for (const origin of origins.split(',')) await visit(origin);
