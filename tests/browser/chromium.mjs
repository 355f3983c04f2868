// What the scripts here have in common: their options, Chromium, pages whose every complaint is kept.

import { X509Certificate, createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import tls from "node:tls";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));

export function missing(sentence) {
  console.error(`browser test: ${sentence}`);
  process.exit(2);
}

// The command line, of which these options are every script's.
export function options(more) {
  const { values } = parseArgs({
    options: {
      url: { type: "string" },
      ca: { type: "string" },
      "setup-token": { type: "string" },
      name: { type: "string", default: "admin" },
      password: { type: "string", default: "the browser test's password" },
      out: { type: "string", default: resolve(here, "../../target/screenshots") },
      chromium: { type: "string", default: "/usr/bin/chromium" },
      ...more,
    },
  });
  if (!values.url) missing("say where the console listens: --url https://127.0.0.1:9443");
  if (!existsSync(values.chromium)) missing(`there is no browser at ${values.chromium}; install chromium or say --chromium FILE`);
  mkdirSync(values.out, { recursive: true });
  return values;
}

// Verifies the console against its CA and gives the leaf's key, which is all that Chromium is then told to accept.
function pin(base, ca) {
  return new Promise((done, failed) => {
    const socket = tls.connect({ host: base.hostname, port: base.port || 443, ca: readFileSync(ca), servername: /^[\d.:[\]]+$/.test(base.hostname) ? undefined : base.hostname }, () => {
      const leaf = new X509Certificate(socket.getPeerCertificate(true).raw);
      socket.end();
      done(createHash("sha256").update(leaf.publicKey.export({ type: "spki", format: "der" })).digest("base64"));
    });
    socket.on("error", failed);
  });
}

export async function launch({ url, ca, chromium: executablePath }) {
  const { chromium } = await import("playwright-core");
  const args = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server",
  ];
  if (ca) args.push(`--ignore-certificate-errors-spki-list=${await pin(new URL(url), ca)}`);
  return chromium.launch({ executablePath, headless: true, args });
}

export const context = (browser, { url, ca }, more = {}) => browser.newContext({ baseURL: new URL(url).origin, ignoreHTTPSErrors: !ca, ...more });

// A page whose every complaint goes to `problem(where, what)`.
export async function watched(context, { url }, label, problem) {
  const page = await context.newPage();
  const { origin } = new URL(url);
  let where = label;
  const complain = (what) => problem(where, what);
  page.on("console", (message) => {
    const text = message.text();
    // The browser writes a line for each answer that is not 2xx; those are judged where they are expected.
    if (["error", "warning"].includes(message.type()) && !text.startsWith("Failed to load resource")) complain(text);
  });
  page.on("pageerror", (error) => complain(`page error: ${error.message}`));
  page.on("requestfailed", (request) => {
    const ended = request.url().endsWith("/events") || request.failure()?.errorText === "net::ERR_ABORTED";
    if (!ended) complain(`${request.url()} failed: ${request.failure()?.errorText}`);
  });
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.origin !== origin && url.protocol !== "data:") complain(`loads ${request.url()} from elsewhere`);
  });
  return { page, at: (path) => { where = `${label} ${path}`; } };
}

let axe;

// Serious and critical findings of axe-core, each in a sentence.
export async function audit(page) {
  axe ??= readFileSync(join(here, "node_modules/axe-core/axe.min.js"), "utf8");
  const client = await page.context().newCDPSession(page);
  // Through the debugger, not as a script element: the page's policy stays as strict as it is.
  await client.send("Runtime.evaluate", { expression: axe });
  const expression = "axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then((r) => JSON.stringify(r.violations))";
  const { result } = await client.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  await client.detach();
  const grave = JSON.parse(result.value).filter((finding) => ["serious", "critical"].includes(finding.impact));
  return grave.map((finding) => {
    const nodes = finding.nodes.slice(0, 3).map((node) => `${node.target.join(" ")} (${(node.any[0] ?? node.all[0] ?? node.none[0])?.message ?? ""})`);
    return `axe ${finding.id}: ${finding.help}: ${nodes.join("; ")}`;
  });
}

// By how many pixels a page scrolls sideways, and on account of what; nothing where it does not.
export async function sideways(page) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide <= 0) return [];
  const culprits = await page.evaluate(() => [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll")).slice(0, 3).map((e) => e.outerHTML.slice(0, 90)));
  return [`scrolls sideways by ${wide} px: ${culprits.join(" | ")}`];
}

