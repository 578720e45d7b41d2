// Sorting, copying, enlarging, filtering. Every page can be read without it.
"use strict";

const NUMBER = /^[+\u2212-]?\d/;   // also of intervals such as 7.4–12.7, which sort by their lower end

// ---- sort: a button in each heading; absent values (–) stay last either way
function valueOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.v ?? cell.textContent.trim();
}
function compare(a, b) {
  const [x, y] = [a, b].map((text) => (NUMBER.test(text) ? parseFloat(text.replace("\u2212", "-")) : NaN));
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
}
function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const way = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
  rows.sort(([a], [b]) => (a === "–") - (b === "–") || way * compare(a, b));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, column));
    head.append(button);
  });
}

// ---- mark: in the table of answers, the gold's column, each run's pick, right and wrong (also said by ✓, ✗ and the column Pick)
const answers = document.getElementById("table-answers");
if (answers) {
  const heads = [...answers.tHead.rows[0].cells];
  const gold = heads.findIndex((head) => head.textContent.endsWith("✓"));
  const first = heads.length - 10;
  for (const row of [answers.tHead.rows[0], ...answers.tBodies[0].rows]) row.cells[gold].classList.add("gold");
  for (const row of answers.tBodies[0].rows) {
    row.cells[2].classList.add(row.cells[2].textContent.includes("✓") ? "right" : "wrong");
    row.cells[first - 1 + Number(row.cells[first - 1].dataset.v)].classList.add("best");
  }
}

// ---- copy: navigator.clipboard where the browser allows it on file://, else a selected textarea and execCommand
async function copy(area) {
  try {
    await navigator.clipboard.writeText(area.value);
    return true;
  } catch {
    area.hidden = false;
    area.select();
    const done = document.execCommand("copy");
    area.hidden = done;            // where even that is refused, the text stays selected for Ctrl+C
    return done;
  }
}
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const done = await copy(document.getElementById(button.dataset.copy));
    button.parentElement.querySelector(".said").textContent = done ? "Copied." : "Press Ctrl+C to copy.";
    if (done) button.focus();
  });
}

// ---- enlarge: a link to the picture that opens in a dialog; Escape and Close are the browser's own
const dialog = document.getElementById("enlarged");
for (const link of dialog ? document.querySelectorAll("a.enlarge") : []) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const small = link.querySelector("img");
    const large = Object.assign(document.createElement("img"), { src: small.src, alt: small.alt });
    dialog.querySelector(".scroll").replaceChildren(large);
    dialog.querySelector("p").textContent = small.alt;
    dialog.showModal();
  });
}

// ---- filter: by word, and by whether a run is right; a letter a run stands in data-marks
const plain = (text) => text.normalize("NFC").replace(/\p{Cf}/gu, "").toLocaleLowerCase();
for (const form of document.querySelectorAll("form.filter")) {
  const rows = [...document.getElementById(form.dataset.table).tBodies[0].rows].map((row) => [row, plain(row.textContent)]);
  const said = form.querySelector("[role=status]");
  const apply = () => {
    const word = plain(form.elements.word.value.trim());
    const mark = form.elements.mark?.value ?? "";
    const run = Number(form.elements.run?.value ?? 0);
    let shown = 0;
    for (const [row, text] of rows) {
      row.hidden = !text.includes(word) || (mark !== "" && row.dataset.marks[run] !== mark);
      shown += !row.hidden;
    }
    said.textContent = `${shown} of ${rows.length} shown`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
