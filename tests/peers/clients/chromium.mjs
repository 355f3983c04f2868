// Chromium, its pages' own fetch and EventSource. usage: node chromium.mjs VERSION CA DOWNLOAD PACKED ORIGINS TRAILERS
// Needs playwright-core, which tests/browser installs.
import { X509Certificate, createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import tls from 'node:tls';

const { chromium } = createRequire(new URL('../../browser/package.json', import.meta.url))('playwright-core');
const [, caFile, download, , origins] = process.argv.slice(2);

// Verifies a host against the authority and gives its key, which is all that Chromium is then told to accept.
function pin(host) {
  return new Promise((done, failed) => {
    const socket = tls.connect({ host, port: 443, ca: readFileSync(caFile), servername: host }, () => {
      const leaf = new X509Certificate(socket.getPeerCertificate(true).raw);
      socket.end();
      done(createHash('sha256').update(leaf.publicKey.export({ type: 'spki', format: 'der' })).digest('base64'));
    });
    socket.on('error', failed);
  });
}

// Runs inside the page: what each check found.
async function inPage([origin, download]) {
  const same = (got, wanted) => {
    if (got !== wanted) throw new Error(`${String(got).slice(0, 80)}, not ${String(wanted).slice(0, 80)}`);
  };
  const sha256 = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  const send = async (path, options = {}) => {
    const answer = await fetch(path, { cache: 'no-store', ...options });
    same(answer.status, 200);
    same(answer.headers.get('x-origin'), origin);
    return answer;
  };
  const timing = async (path) => {
    performance.clearResourceTimings();
    await (await send(path)).text();
    for (let time = 0; time < 50; time++) {
      const [entry] = performance.getEntriesByType('resource').filter((entry) => entry.name.endsWith(path));
      if (entry?.responseEnd) return entry;
      await new Promise((done) => setTimeout(done, 20));
    }
    throw new Error('no timing');
  };
  const digest = async (body, more = {}) => {
    const whole = await new Response(body instanceof ReadableStream ? 'x'.repeat((1 << 20) + 1) : body).arrayBuffer();
    same(await (await send('/digest', { method: 'POST', body, ...more })).text(), `${await sha256(whole)} ${whole.byteLength}`);
  };
  const pieces = () => {
    let left = 17;
    return new ReadableStream({
      pull(controller) {
        left -= 1;
        controller.enqueue(new TextEncoder().encode('x'.repeat(left ? 1 << 16 : 1)));
        if (!left) controller.close();
      },
    });
  };
  const checks = {
    get: async () => {
      same(await (await send('/text')).text(), 'hello\n');
      same((await timing('/text?version')).nextHopProtocol, 'h2');
    },
    head: async () => same(await (await send('/text', { method: 'HEAD' })).text(), ''),
    post: () => digest('0123456789'.repeat(10_000)),
    stream: () => digest(pieces(), { duplex: 'half' }),
    download: async () => same(await sha256(await (await send('/download')).arrayBuffer()), download),
    packed: async () => same(await (await send('/packed')).text(), 'packed\n'.repeat(1000)),
    events: () => new Promise((done, failed) => {
      const source = new EventSource('/events');
      const seen = [];
      source.onmessage = (event) => seen.push([event.data, performance.now()]);
      // The end of the stream is an error to EventSource, which would begin anew.
      source.onerror = () => {
        source.close();
        try {
          same(seen.map(([data]) => data).join(), '0,1,2');
          if (seen[2][1] - seen[0][1] < 250) throw new Error('all events at once');
          done();
        } catch (error) {
          failed(error);
        }
      };
    }),
    cookies: async () => {
      await (await send('/cookies')).text();
      same(document.cookie, 'a=1');
      same((await (await send('/cookies')).text()).split('; ').sort().join('; '), 'a=1; b=2');
    },
    reuse: async () => {
      const entry = await timing('/text?again');
      same(entry.connectEnd - entry.connectStart, 0);
    },
  };
  const said = {};
  for (const [name, check] of Object.entries(checks)) {
    said[name] = await check().then(() => 'ok', (error) => String(error));
  }
  return said;
}

const names = origins.split(',');
const key = await pin(`${names[0]}.walk.test`);
const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--no-proxy-server', `--ignore-certificate-errors-spki-list=${key}`];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args });
for (const origin of names) {
  // A context of its own has no cookies and no connections of another.
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`https://${origin}.walk.test/text`);
  const said = await page.evaluate(inPage, [origin, download]);
  for (const [name, what] of Object.entries(said)) console.log(origin, name, what.replaceAll('\n', ' '));
  await context.close();
}
await browser.close();
