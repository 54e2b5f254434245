"use strict";
// Sends what was pasted, and shows the plot or the error. What comes from outside is put in as text only.

const byId = (id) => document.getElementById(id);
const [csv, file, variate, button, error, result, plot, download] =
  ["csv", "file", "variate", "forecast", "error", "result", "plot", "download"].map(byId);
let addresses = [];

const show = (message) => {
  error.textContent = message;
  error.hidden = !message;
};

// The answer, or an error that says why there is none.
const ask = async (path, options) => {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error ?? `The server answered ${answer.status}.`);
};

const forecast = async (path, form) => {
  const headers = { "Content-Type": "text/csv", Accept: form };
  const answer = await ask(path, { method: "POST", headers, body: csv.value });
  return URL.createObjectURL(await answer.blob());
};

const describe = async () => {
  const model = await (await ask("model")).json();
  const count = model.variates.length;
  byId("model").textContent = model.model;
  byId("about").textContent =
    `The next ${model.horizon} rows from the last ${model.lookback} or more, ` +
    (model.step ? `${model.step} apart, ` : "") + (count === 1 ? "of one variate." : `of ${count} variates.`);
  csv.placeholder = [...(model.needs_timestamps || model.step ? ["date"] : []), ...model.variates.slice(0, 8)].join(",");
  variate.replaceChildren(...model.variates.map((name) => new Option(name, name)));
};

const refresh = async () => {
  button.disabled = true;
  show("");
  try {
    const query = new URLSearchParams({ variate: variate.value });
    const made = await Promise.all([forecast(`forecast?${query}`, "image/svg+xml"), forecast("forecast", "text/csv")]);
    addresses.forEach(URL.revokeObjectURL);
    addresses = made;
    [plot.src, download.href] = made;
    plot.alt = `Plot of ${variate.value}: the rows that were sent, and the forecast after them`;
    await plot.decode();
    result.hidden = false;
    result.scrollIntoView({ block: "nearest" });
    // Where the plot is wider than the screen, its end is what was asked for.
    plot.parentElement.scrollLeft = plot.parentElement.scrollWidth;
  } catch (problem) {
    result.hidden = true;
    show(problem.message);
  }
  button.disabled = false;
};

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  refresh();
});
variate.addEventListener("change", () => { if (!result.hidden) refresh(); });
file.addEventListener("change", async () => { if (file.files[0]) csv.value = await file.files[0].text(); });
describe().catch((problem) => show(problem.message));
