// Everything here is a convenience: each page works without it.
"use strict";

// Relative times. The server writes the absolute time; a title keeps it on hover.
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function phrase(seconds) {
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? UNITS.at(-1);
  return relative.format(Math.trunc(seconds / length), unit);
}

function tickTimes(root = document) {
  for (const time of root.querySelectorAll("time[data-relative]")) {
    const at = Date.parse(time.dateTime);
    if (Number.isNaN(at)) continue;
    time.textContent = phrase((at - Date.now()) / 1000);
    time.title = new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
  }
}

// Copy buttons: shown only where there is a clipboard to write to.
function armCopy(root = document) {
  for (const button of root.querySelectorAll("button[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.onclick = async () => {
      const source = document.getElementById(button.dataset.copy);
      const before = button.textContent;
      try {
        await navigator.clipboard.writeText(source.textContent.trim());
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Press Ctrl+C";
      }
      setTimeout(() => { button.textContent = before; }, 2000);
    };
  }
}

// Sorting in place, when the table holds every row; a paged table follows the header's link to the server instead.
function cellKey(row, column) {
  const cell = row.cells[column];
  const raw = cell?.dataset.sort ?? cell?.textContent.trim() ?? "";
  const number = Number(raw);
  return raw !== "" && !Number.isNaN(number) ? number : raw.toLowerCase();
}

function compare(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? 1 : -1;
}

function sortBy(table, header, link) {
  // Of figures the largest come first, as the header's link has it.
  const sorted = header.getAttribute("aria-sort");
  const down = sorted ? sorted === "ascending" : header.classList.contains("num");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const column = header.cellIndex;
  rows.sort((x, y) => (down ? -1 : 1) * compare(cellKey(x, column), cellKey(y, column)));
  body.append(...rows);
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const url = new URL(link.href);
  url.searchParams.set("dir", down ? "desc" : "asc");
  history.replaceState(null, "", url);
  url.searchParams.set("dir", down ? "asc" : "desc");
  link.href = url;
}

function armSort(root = document) {
  for (const table of root.querySelectorAll("table[data-whole]")) {
    for (const header of table.tHead.rows[0].cells) {
      const link = header.querySelector("a");
      if (!link) continue;
      link.onclick = (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        sortBy(table, header, link);
      };
    }
  }
}

// A filter box applies itself shortly after the last key.
function armFilter() {
  for (const box of document.querySelectorAll("input[data-filter]")) {
    let timer = 0;
    box.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        const url = new URL(location.href);
        if (box.value) url.searchParams.set("q", box.value); else url.searchParams.delete("q");
        url.searchParams.delete("page");
        history.replaceState(null, "", url);
        await refresh();
      }, 200);
    });
  }
}

// A form with changes in it is not left by a slip of the hand.
function armLeave() {
  const form = document.querySelector("form[data-guard]");
  if (!form) return;
  let dirty = false;
  form.addEventListener("input", () => { dirty = true; });
  form.addEventListener("submit", () => { dirty = false; });
  addEventListener("beforeunload", (event) => { if (dirty) event.preventDefault(); });
}

// Live figures: an event says that something changed; the page fetches itself and takes over the parts marked live.
// So there is one way of drawing a figure, the server's.
const shown = new WeakMap();
let busy = false;
let again = false;

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, credentials: "same-origin" });
    if (answer.redirected || !answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (!next || next.innerHTML === shown.get(part)) continue;
      // Never from under somebody's hands: a focused control or an opened fold stays; the next event tries again.
      if (part.contains(document.activeElement) || part.querySelector("details[open]")) continue;
      shown.set(part, next.innerHTML);
      part.replaceChildren(...next.childNodes);
      arm(part);
    }
  } catch {
    // The console is away; the next event or the next look tries again.
  } finally {
    busy = false;
    if (again) { again = false; refresh(); }
  }
}

function follow() {
  if (!document.querySelector("[data-live]")) return;
  let source = null;
  let last = 0;
  let timer = 0;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { last = Date.now(); refresh(); }, Math.max(0, 1000 - (Date.now() - last)));
  };
  const open = () => {
    source = new EventSource("/events");
    source.onmessage = soon;
    for (const name of ["revision", "node", "traffic"]) source.addEventListener(name, soon);
  };
  const show = () => {
    if (document.hidden) { source?.close(); source = null; } else if (!source) { open(); soon(); }
  };
  document.addEventListener("visibilitychange", show);
  addEventListener("pagehide", () => source?.close());
  if (!document.hidden) open();
}

function arm(root = document) {
  tickTimes(root);
  armCopy(root);
  armSort(root);
}

arm();
armFilter();
armLeave();
follow();
setInterval(tickTimes, 1000 * 10);
