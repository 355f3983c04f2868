// A browser that a test steers: orders come as JSON lines, each has one line as its answer. See README.md.

import { join } from "node:path";
import { createInterface } from "node:readline";
import { audit, context, launch, missing, options, sideways, watched } from "./chromium.mjs";

const given = options({});
// What pages complained of since it was last told.
let complaints = [];
const problem = (where, what) => complaints.push(`${where}: ${what}`);

const browser = await launch(given).catch((error) => missing(`the browser does not start, or the console is not there: ${error.message.split("\n")[0]}`));
// By name; a window for each, so that each goes on while others are looked at.
const tabs = new Map();
let state;

async function setUp() {
  const first = await context(browser, given);
  const { page } = await watched(first, given, "setup", problem);
  await page.goto(`/setup?token=${encodeURIComponent(given["setup-token"])}`);
  await page.fill("#name", given.name);
  await page.fill("#password", given.password);
  await page.fill("#again", given.password);
  await page.click("button.main");
  await page.waitForURL((url) => url.pathname !== "/setup");
  state = await first.storageState();
  await first.close();
}

// How long it takes until all of a page is there, in milliseconds.
async function open({ tab, path, width = 1440, theme = "light" }) {
  const known = tabs.get(tab);
  if (known?.width !== width || known?.theme !== theme) {
    await known?.in.close();
    const sized = await context(browser, given, { storageState: state, colorScheme: theme, reducedMotion: "reduce", viewport: { width, height: 900 } });
    tabs.set(tab, { in: sized, width, theme, ...await watched(sized, given, tab, problem) });
  }
  const { page, at } = tabs.get(tab);
  at(`${path} at ${width} ${theme}`);
  const begin = performance.now();
  const answer = await page.goto(path, { waitUntil: "load" });
  return { status: answer.status(), took: performance.now() - begin };
}

// What a person reads: of each part its text, and the rows of its tables. At one moment, for pages change under the reader.
function seen() {
  const text = (element) => element.innerText.trim();
  const table = (table) => [...table.tBodies[0].rows].filter((row) => row.checkVisibility()).map((row) => [...row.cells].map(text));
  const part = (element) => ({ id: element.id, text: text(element), rows: [...element.querySelectorAll("table")].flatMap(table) });
  return { at: Date.now(), head: text(document.querySelector("main .head")), parts: [...document.querySelectorAll("main [id]")].filter((element) => element.checkVisibility()).map(part) };
}

// Where what is written does not fit in what it is written in.
function cramped() {
  const found = [];
  for (const box of document.querySelectorAll("main .scroll")) {
    const wide = box.scrollWidth - box.clientWidth;
    if (wide > 1) found.push(`a table scrolls sideways by ${wide} px: ${box.innerText.slice(0, 90)}`);
  }
  const range = document.createRange();
  for (const element of document.querySelectorAll("main td, main th, main .figure, main .told, main .pill, main .state, main .button")) {
    if (!element.checkVisibility() || element.closest("thead") && innerWidth <= 760) continue;
    range.selectNodeContents(element);
    const [text, box] = [range.getBoundingClientRect(), element.getBoundingClientRect()];
    if (text.width > 0 && (text.right > box.right + 1 || text.left < box.left - 1)) found.push(`does not fit: ${element.outerHTML.slice(0, 120)}`);
  }
  return found.slice(0, 5);
}

const ORDERS = {
  open,
  "set-up": setUp,
  read: ({ tab }) => tabs.get(tab).page.evaluate(seen),
  shot: ({ tab, file }) => tabs.get(tab).page.screenshot({ path: join(given.out, file), fullPage: true }).then(() => null),
  // What is wrong with how it looks.
  look: async ({ tab }) => [...await sideways(tabs.get(tab).page), ...await tabs.get(tab).page.evaluate(cramped)],
  audit: ({ tab }) => audit(tabs.get(tab).page),
  close: async ({ tab }) => { await tabs.get(tab)?.in.close(); tabs.delete(tab); },
  complaints: () => complaints.splice(0),
};

try {
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    const answer = await Promise.resolve().then(() => ORDERS[order.do](order)).then((done) => ({ done: done ?? null }), (error) => ({ failed: error.message }));
    console.log(JSON.stringify(answer));
  }
} finally {
  await browser.close();
}
