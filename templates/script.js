"use strict";
// Sorting, filters, receipts and the theme. Without it the page shows everything, one suite below the other.

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const data = JSON.parse(document.getElementById("data").textContent);
const suites = all(".suite");
const dialog = document.getElementById("receipt");
const say = (text) => { document.getElementById("said").textContent = text; };

/** An element with text or children; never markup, whatever names are made of. */
function make(tag, content, attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...[content].flat());
  return element;
}

// The theme: that of the system until a person chooses.
const theme = document.getElementById("theme");
const night = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (night.matches ? "dark" : "light")) === "dark";
const showTheme = () => theme.setAttribute("aria-pressed", String(isDark()));
try {
  const chosen = localStorage.getItem("longcast-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* Some browsers keep nothing for files. */ }
theme.addEventListener("click", () => {
  const chosen = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  try { localStorage.setItem("longcast-theme", chosen); } catch { /* It then holds for this visit. */ }
  showTheme();
});
night.addEventListener("change", showTheme);
showTheme();

// Sorting: up, down, and the order it came in.
const rank = { none: "ascending", ascending: "descending", descending: "none" };

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = all("thead th", table);
  const suite = table.closest(".suite");
  const key = (row, column) => {
    const cell = row.cells[column];
    const second = suite.classList.contains("only-two") && cell.querySelector(".two");
    const text = (second || cell).textContent.trim();
    const number = parseFloat(text);
    return Number.isNaN(number) ? text : number;
  };
  const isNothing = (value) => value === "–" || value === "mean";
  const compare = (one, other) => {
    if (isNothing(one) || isNothing(other)) return Number(isNothing(one)) - Number(isNothing(other));
    return typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other));
  };
  const sort = (column, order) => {
    heads.forEach((head, index) => head.setAttribute("aria-sort", index === column ? order : "none"));
    const rows = original.map((row, index) => ({ row, index, key: key(row, column) }));
    const sign = order === "descending" ? -1 : 1;
    if (order !== "none") {
      rows.sort((a, b) => {
        // What is missing stays last in both directions.
        const missing = isNothing(a.key) || isNothing(b.key);
        return (missing ? 1 : sign) * compare(a.key, b.key) || a.index - b.index;
      });
    }
    body.append(...rows.map(({ row }) => row));
  };
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const order = rank[head.getAttribute("aria-sort")];
    sort(column, order);
    say(order === "none" ? "In the order of the suite" : `Sorted by ${head.textContent}, ${order}`);
  }));
  // Sorted by the score that is shown.
  suite.querySelector(".tools").addEventListener("change", (event) => {
    if (event.target.name !== "metric") return;
    const column = heads.findIndex((head) => head.getAttribute("aria-sort") !== "none");
    if (column >= 0) sort(column, heads[column].getAttribute("aria-sort"));
  });
}
all("table").forEach(sortable);

// Filters.
function show(suite) {
  const tools = suite.querySelector(".tools").elements;
  const [dataset, horizon] = [tools.dataset.value, tools.horizon.value];
  let shown = 0;
  for (const row of all("tbody tr", suite)) {
    row.hidden = (dataset && row.dataset.dataset !== dataset) || (horizon && row.dataset.horizon !== horizon);
    shown += row.hidden ? 0 : 1;
  }
  const charted = all(".sets input", suite).find((input) => input.checked)?.value;
  for (const figure of all("figure", suite)) {
    const { dataset: of, horizon: at } = figure.dataset;
    figure.hidden = Boolean((of && of !== charted) || (at && horizon && horizon !== "avg" && at !== horizon));
  }
  for (const group of all(".group", suite)) group.hidden = all("figure", group).every((figure) => figure.hidden);
  const metric = all("[name=metric]", suite).find((input) => input.checked).value;
  suite.classList.toggle("only-one", metric === "one");
  suite.classList.toggle("only-two", metric === "two");
  suite.classList.toggle("with-paper", Boolean(tools.published?.checked));
  return shown;
}

// A column and a line are hidden by rules, so that no cell has to be touched.
function hideModels() {
  const rules = [];
  for (const suite of suites) {
    for (const { value, checked } of all("[name=model]", suite)) {
      if (checked) continue;
      const style = Number(value) % 32;
      rules.push(`#${suite.id} .chart .l${style},#${suite.id} .chart .f${style},#${suite.id} [data-model="${value}"]`);
      all("table", suite).forEach((table) => all("thead th", table).forEach((head, column) => {
        if (head.dataset.model !== value) return;
        const board = all("table", suite).indexOf(table);
        table.dataset.board = board;
        rules.push(`#${suite.id} [data-board="${board}"] tbody tr>:nth-child(${column + 1})`);
      }));
    }
  }
  document.getElementById("hidden").textContent = rules.length ? `${rules.join(",")}{display:none}` : "";
}

for (const suite of suites) {
  suite.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  suite.addEventListener("change", ({ target }) => {
    if (target.name === "model") hideModels();
    // Charts follow the table to its data set.
    const chart = target.name === "dataset" && all(".sets input", suite).find((input) => input.value === target.value);
    if (chart) chart.checked = true;
    const shown = show(suite);
    if (target.name === "dataset" || target.name === "horizon") say(`${shown} rows shown`);
  });
}

// Receipts.
const records = new Map();
for (const suite of data.suites) {
  for (const values of suite.records) {
    const record = Object.fromEntries(data.fields.map((field, index) => [field, values[index]]));
    record.suite = suite;
    record.stem = record.file.replace(/\.[^.]*$/, "");
    records.set(`${suite.name}/${record.stem}`, record);
  }
}
const address = (record) => `#${encodeURIComponent(record.suite.name)}/${encodeURIComponent(record.stem)}`;
const quoted = (text) => (/^[\w./@:+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const rows = (range) => `${range[0]}..${range[1]}`;
const count = (number) => number.toLocaleString("en").replaceAll(",", "\u202f");
const seconds = (time) => (time < 1 ? `${(1000 * time).toPrecision(3)} ms` : `${time.toPrecision(3)} s`);

/** `{a: {b: 1}}` as `[["a.b", "1"]]`. */
function flat(table, path = "") {
  return Object.entries(table).flatMap(([name, value]) =>
    value && typeof value === "object" && !Array.isArray(value)
      ? flat(value, `${path}${name}.`)
      : [[path + name, typeof value === "string" ? value : JSON.stringify(value)]]);
}

function list(title, entries) {
  const kept = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const items = kept.flatMap(([name, value, kind]) => [make("dt", name), make("dd", String(value), kind ? { class: kind } : {})]);
  return kept.length ? [make("h3", title), make("dl", items)] : [];
}

/** Folded: a data set may have hundreds. */
function byVariate(names, errors) {
  if (errors.length < 2) return [];
  const [, entries] = list("", names.map((name, index) => [name, errors[index]]));
  return [make("details", [make("summary", "MSE by variate"), entries])];
}

function copy(button, text) {
  const copied = navigator.clipboard?.writeText(text) ?? Promise.reject(new Error("no clipboard"));
  copied.then(() => { button.textContent = "Copied"; }, () => { button.textContent = "Select and copy"; });
}

function sheet(record) {
  const setting = data.settings[record.setting];
  const from = data.data[record.data];
  const software = data.software[record.software];
  const machine = data.machines[record.machine];
  const command = `longcast verify ${quoted([record.suite.dir, record.file].filter(Boolean).join("/"))}`;
  const close = make("button", "Close", { type: "button", class: "quiet" });
  close.addEventListener("click", () => dialog.close());
  const button = make("button", "Copy", { type: "button", class: "quiet" });
  button.addEventListener("click", () => copy(button, command));
  const score = (name, value) => make("div", [make("b", value === null ? "–" : value.toFixed(4)), make("span", name)]);
  const seeds = record.suite.records.map((values) => records.get(`${record.suite.name}/${values[0].replace(/\.[^.]*$/, "")}`))
    .filter((other) => data.settings[other.setting].name === setting.name && other.lookback === record.lookback
      && other.horizon === record.horizon && data.data[other.data].dataset === from.dataset)
    .sort((one, other) => one.seed - other.seed);
  const seedLinks = seeds.map((other) =>
    make("a", `seed ${other.seed}`, { href: address(other), ...(other === record ? { "aria-current": "true" } : {}) }));
  const printed = record.published && `${record.published[0]}: ${record.published.slice(1, 3).map((x) => x ?? "–").join(" / ")}`;
  const split = from.split || [];
  return make("div", [
    make("header", [
      make("h2", `${setting.name} on ${from.dataset}, ${record.lookback} → ${record.horizon}`, { id: "receipt-title" }),
      close,
    ]),
    ...(seeds.length > 1 ? [make("div", seedLinks, { class: "seedbar" })] : []),
    make("div", from.series > 1
      ? [score("sMAPE, percent", record.smape), score("MASE", record.mase)]
      : [score("MSE", record.mse), score("MAE", record.mae), score("RMSE", record.rmse)], { class: "big" }),
    make("p", "Run it again, and see whether one bit differs:"),
    make("div", [make("code", command), button], { class: "verify" }),
    ...list("Beside it", [["published", printed], ["source", record.published && data.sources[record.published[3]]]]),
    ...list("Task", [
      ["model", setting.model], ["preset", setting.preset], ["lookback", record.lookback], ["horizon", record.horizon],
      ["seed", record.seed], ["learns", setting.learning],
      ["weights from", setting.init?.datasets.join(", ")], ["sha256 of weights", setting.init?.weights, "hash"],
      ["drop last", setting.dropLast || null], ["drop last, validation", setting.validDropLast || null],
    ]),
    ...list("Params", flat(setting.params)),
    ...list("Data", [
      ["sha256", from.sha256, "hash"], ["rows", count(from.rows)], ["variates", count(from.variates)],
      ["series", from.series > 1 ? count(from.series) : null], ["season", from.season], ["calendar", from.calendar],
      ["rows trained on", split[0] && rows(split[0])], ["rows to choose by", split[1] && rows(split[1])],
      ["rows tested on", split[2] && rows(split[2])],
      ["scaler, means", from.scaler && from.scaler[0].join(" to ")],
      ["scaler, deviations", from.scaler && from.scaler[1].join(" to ")],
    ]),
    ...list("Scored", [
      ["windows", `${count(record.scored)} of ${count(record.possible)}`],
      ["windows learnt from", count(record.train)], ["windows chosen by", count(record.valid)],
      ["MSE, units of the data", record.rawMse], ["MAE, units of the data", record.rawMae],
      ["MASE", record.mase], ["sMAPE", record.smape && `${record.smape} %`],
      ["sha256 of forecasts", record.forecasts, "hash"],
    ]),
    ...byVariate(from.names, record.byVariate),
    ...list("Run", [
      ["fitting", seconds(record.fit)], ["scoring", seconds(record.evaluate)],
      ["processors, in all", record.cpu && seconds(record.cpu)], ["epochs", record.epochs || null],
      ["peak of memory", record.memory && `${count(record.memory)} MB`],
      ["version", `${software.version}, revision ${software.revision}`],
      ["machine", `${machine.cpu}, ${machine.threads} threads, ${machine.os}`], ["features", machine.features?.join(", ")],
      ["device", machine.device],
    ]),
  ], { class: "sheet" });
}

let opener = null;
function open(record) {
  dialog.replaceChildren(sheet(record));
  dialog.scrollTop = 0;
  if (!dialog.open) {
    opener = all("td a").find((link) => link.getAttribute("href") === address(record)) ?? null;
    dialog.showModal();
  }
}
// The address is that of the suite again, without a new entry in the history.
dialog.addEventListener("close", () => {
  history.replaceState(null, "", location.hash.split("/")[0] || "#");
  opener?.focus();
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

// Addresses: #suite and #suite/record.
let current = null;
function route() {
  const [name, stem] = location.hash.slice(1).split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return part; }
  });
  const found = suites.find((suite) => suite.dataset.suite === name);
  const next = found ?? current ?? suites[0];
  if (next !== current) {
    suites.forEach((suite) => { suite.hidden = suite !== next; });
    all("nav a").forEach((link, index) => {
      if (suites[index] !== next) return link.removeAttribute("aria-current");
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    show(next);
    if (current) scrollTo(0, 0);
    current = next;
  }
  const record = found && stem && records.get(`${name}/${stem}`);
  if (record) open(record);
  else if (dialog.open) dialog.close();
}
addEventListener("hashchange", route);
route();
