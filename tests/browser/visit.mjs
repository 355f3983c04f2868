// Visits every page of a running console and fails on anything a person would stumble over. See README.md.

import { join } from "node:path";
import * as shared from "./chromium.mjs";

const given = shared.options({ "read-only": { type: "boolean", default: false }, pages: { type: "string" } });
const problems = [];
const problem = (where, what) => {
  const line = `${where}: ${what}`;
  if (!problems.includes(line)) { problems.push(line); console.log(`FAIL ${line}`); }
};

const WIDTHS = [1440, 390];
const THEMES = ["light", "dark"];
const START = [
  "/", "/?range=24h", "/routes", "/routes/new", "/origins", "/origins/new", "/certificates", "/certificates/new",
  "/trust-bundles", "/trust-bundles/new", "/listeners", "/listeners/new", "/packet-filter", "/packet-filter/new",
  "/prefix-sets", "/prefix-sets/new",
  "/sources", "/flows", "/flows?reason=denied", "/flows?port=x", "/nodes", "/changes",
];
// Of a hundred revisions two tell as much as all.
const AT_MOST = { "/changes/": 2, "/routes/": 3, "/origins/": 3, "/certificates/": 3, "/nodes/": 3, "/listeners/": 2, "/trust-bundles/": 2, "/packet-filter/": 2, "/prefix-sets/": 2 };

const { missing } = shared;
const watched = (context, label) => shared.watched(context, given, label, problem);
const context = (browser, more) => shared.context(browser, given, more);
const audit = async (page, where) => (await shared.audit(page)).forEach((finding) => problem(where, finding));

async function signIn(browser) {
  const first = await context(browser);
  const { page, at } = await watched(first, "sign in");
  if (given["setup-token"]) {
    at("/setup");
    await page.goto(`/setup?token=${encodeURIComponent(given["setup-token"])}`);
    await audit(page, "setup");
    await page.screenshot({ path: join(given.out, "setup.png") });
    await page.fill("#name", given.name);
    await page.fill("#password", given.password);
    await page.fill("#again", given.password);
    await page.click("button.main");
  } else {
    at("/login");
    await page.goto("/login?next=/nodes");
    await audit(page, "login");
    await page.screenshot({ path: join(given.out, "login.png") });
    await page.fill("#name", given.name);
    await page.fill("#password", "not the password");
    await page.click("button.main");
    if (await page.locator("[role=alert]").count() !== 1) problem("/login", "a wrong password shows no message");
    await page.fill("#password", given.password);
    await page.click("button.main");
    await page.waitForURL("**/nodes");
  }
  if (new URL(page.url()).pathname.match(/^\/(login|setup)/)) {
    missing(`could not sign in: ${(await page.locator("[role=alert]").allTextContents()).join(" ").trim() || page.url()}`);
  }
  const state = await first.storageState();
  await first.close();
  return state;
}

const fileName = (path) => path === "/" ? "overview" : path.slice(1).replace(/[^a-z0-9]+/gi, "-");

// One page at one size in one theme; gives the links on it.
async function visit({ page, at }, path, width, theme) {
  const label = `${path} at ${width} ${theme}`;
  at(label);
  const answer = await page.goto(path, { waitUntil: "load" });
  if (answer.status() !== 200) problem(label, `answers ${answer.status()}`);
  (await shared.sideways(page)).forEach((finding) => problem(label, finding));
  await audit(page, label);
  await page.screenshot({ path: join(given.out, `${fileName(path)}-${width}-${theme}.png`), fullPage: true });
  return page.evaluate(() => [...document.querySelectorAll("a[href]")].map((a) => a.getAttribute("href")));
}

function wanted(links, seen) {
  const found = [];
  for (const link of links) {
    const path = link.split("#")[0];
    const group = Object.keys(AT_MOST).find((start) => path.startsWith(start));
    if (!group || path.includes("?") || path.endsWith("/new") || seen.has(path)) continue;
    if ([...seen].filter((other) => other.startsWith(group) && !other.endsWith("/new")).length >= AT_MOST[group]) continue;
    seen.add(path);
    found.push(path);
  }
  return found;
}

// The one form, without script: the server alone must carry it to a published route.
async function withoutScript(browser, state) {
  const plain = await context(browser, { storageState: state, javaScriptEnabled: false });
  const { page, at } = await watched(plain, "without script");
  at("/routes/new");
  await page.goto("/routes/new");
  await page.fill("#host", "browser-test.example.com");
  await page.check("#source-internal");
  await page.check("#origin-new");
  await page.fill("#origins", "https://127.0.0.1:1 not-a-scheme://x");
  await page.click("button[value=review]");
  if (await page.locator("#problems").count() !== 1) problem("/routes/new", "a wrong origin is not refused");
  if (await page.inputValue("#host") !== "browser-test.example.com") problem("/routes/new", "what was typed is lost");
  await page.screenshot({ path: join(given.out, "route-form-refused.png"), fullPage: true });
  await page.fill("#origins", "https://127.0.0.1:1");
  await page.click("button[value=review]");
  if (await page.locator("button[value=publish]").count() !== 1) {
    return problem("/routes/new", `no review: ${(await page.locator("main").innerText()).slice(0, 300)}`);
  }
  await page.screenshot({ path: join(given.out, "review.png"), fullPage: true });
  await page.click("button[value=edit]");
  if (await page.inputValue("#origins") !== "https://127.0.0.1:1") problem("/routes/new", "going back loses what was typed");
  await page.click("button[value=review]");
  await page.fill("#message", "added by the browser test");
  await page.click("button[value=publish]");
  await page.waitForURL(/\/changes\/\d+$/, { timeout: 20_000 }).catch(() => problem("/routes/new", `publishing ended at ${page.url()}`));
  await page.screenshot({ path: join(given.out, "published.png"), fullPage: true });
  await plain.close();
}

// The script's own work: sorting in place, the phone's menu, the skip link.
async function withScript(browser, state) {
  const fancy = await context(browser, { storageState: state, viewport: { width: 390, height: 844 } });
  const { page, at } = await watched(fancy, "with script");
  at("/routes");
  await page.goto("/routes");
  await page.locator(".top summary").click();
  if (!await page.locator(".top nav a[href='/nodes']").isVisible()) problem("menu", "does not open on a phone");
  await page.screenshot({ path: join(given.out, "menu-390.png") });
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.goto("/certificates");
  const header = page.locator("th a", { hasText: "ends" });
  if (await header.count() === 1) {
    await header.click();
    if (!page.url().includes("sort=ends")) problem("/certificates", "sorting in place leaves the address behind");
    if (await page.locator("th[aria-sort]").count() !== 1) problem("/certificates", "sorting in place does not say so");
  }
  await page.goto("/");
  await page.keyboard.press("Tab");
  if (await page.evaluate(() => document.activeElement?.className) !== "skip") problem("/", "the skip link is not first");
  const response = await page.goto("/nowhere");
  if (response.status() !== 404) problem("/nowhere", `answers ${response.status()}, not 404`);
  await audit(page, "/nowhere");
  await page.screenshot({ path: join(given.out, "not-found.png") });
  await fancy.close();
}

const browser = await shared.launch(given).catch((error) => missing(`the browser does not start, or the console is not there: ${error.message.split("\n")[0]}`));
let pages = 0;
try {
  const state = await signIn(browser);
  if (!given["read-only"]) await withoutScript(browser, state);
  if (!given.pages) await withScript(browser, state);
  const paths = given.pages ? given.pages.split(",") : [...START];
  const seen = new Set(paths);
  for (const width of WIDTHS) {
    for (const theme of THEMES) {
      const sized = await context(browser, { storageState: state, colorScheme: theme, reducedMotion: "reduce", viewport: { width, height: 900 } });
      const tab = await watched(sized, "visit");
      for (const path of paths) {
        const links = await visit(tab, path, width, theme);
        pages += 1;
        // The list grows on the first round only, so that all rounds see the same pages.
        if (!given.pages && width === WIDTHS[0] && theme === THEMES[0]) paths.push(...wanted(links, seen));
      }
      await sized.close();
    }
  }
} catch (error) {
  // A timeout or a page that is gone: a finding like any other, and no reason to leave the browser running.
  problem("walk", error.message.split("\n")[0]);
} finally {
  await browser.close();
}
console.log(`${pages} pages looked at, ${problems.length} problems; screenshots are in ${given.out}`);
process.exit(problems.length === 0 ? 0 : 1);
