
// The page of the server. Everything that the server sends is shown as text.
const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const session = { history: [], answers: null, info: null, number: 0 };

// Asks the server; a body makes it a POST. An error has the reason of the server.
async function ask(path, body) {
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(token && { Authorization: `Bearer ${token}` }) };
  const reply = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

// Fills an element with what `work` returns; while it waits, and if it fails, with a word. Only the last call for an element counts.
async function fill(element, work) {
  const call = (element.call = (element.call || 0) + 1);
  element.replaceChildren(el("p", { class: "quiet" }, "Computing …"));
  try {
    const found = await work();
    if (element.call === call) element.replaceChildren(...[found].flat());
  } catch (error) {
    if (element.call === call) element.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
  }
}

const percent = (p) => `${(100 * p).toFixed(2)} %`;
const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(3)}`;
const spaced = (text) => text.replace(/^##/, "…");
const kind = (name) => session.info.adapters.find((adapter) => adapter.name === name);
const score = (name, x) => (kind(name).outputs === "numbers" ? x.toFixed(4) : percent(x));
const likeliest = (scores) => scores.indexOf(Math.max(...scores));
const chosen = () => ({ text: session.answers.text, adapter: $("adapter").value });
const options = (select, names) => select.replaceChildren(...names.map((name, i) => el("option", { value: i }, name)));

// Tokens with a background whose strength is a share of the largest value.
function coloured(tokens, values, words) {
  const most = Math.max(...values.map(Math.abs), 1e-12);
  return el("div", { class: "tokens", role: "list" }, tokens.map((text, i) => {
    const span = el("span", { role: "listitem", title: words(values[i]) }, spaced(text));
    span.style.background = `rgb(var(--${values[i] < 0 ? "minus" : "plus"}) / ${(0.45 * Math.abs(values[i])) / most})`;
    return span;
  }));
}

function card(adapter) {
  const numbers = kind(adapter.name).outputs === "numbers";
  const bars = adapter.labels.map((label, i) => {
    const bar = el("i", { "aria-hidden": "true" });
    bar.style.width = numbers ? "0" : `${100 * adapter.scores[i]}%`;
    return el("div", { class: "bar" }, el("span", {}, label), bar, el("b", {}, score(adapter.name, adapter.scores[i])));
  });
  const cut = adapter.truncated ? el("p", { class: "error" }, `Only the first ${adapter.tokens.length} tokens were read.`) : null;
  return el("article", { class: "card" }, el("h3", {}, adapter.name), el("p", {}, numbers ? "" : adapter.labels[likeliest(adapter.scores)]), bars, cut);
}

async function classify(text) {
  const number = ++session.number;
  $("status").textContent = "Computing …";
  try {
    const found = await ask("/api/answers", { text });
    if (number !== session.number) return;
    session.answers = found;
    session.history.push({ time: new Date().toISOString(), text, answers: found.adapters.map(({ name, labels, scores }) => ({ name, labels, scores })) });
    $("status").textContent = `${found.adapters[0].tokens.length} tokens`;
    showAnswers();
    showHistory();
  } catch (error) {
    if (number === session.number) $("status").textContent = error.message;
  }
}

function showAnswers() {
  const { adapters } = session.answers;
  $("results").hidden = false;
  $("answers").replaceChildren(...adapters.map(card));
  const before = $("adapter").value;
  $("adapter").replaceChildren(...adapters.map(({ name }) => el("option", { value: name }, name)));
  if (adapters.some(({ name }) => name === before)) $("adapter").value = before;
  showAdapter();
}

function showAdapter() {
  const adapter = session.answers.adapters.find(({ name }) => name === $("adapter").value);
  const { layers, heads } = kind(adapter.name);
  options($("class"), adapter.labels);
  $("class").value = likeliest(adapter.scores);
  const count = (n) => Array.from({ length: n }, (_, i) => String(i));
  for (const [id, n] of [["layer", layers], ["head", heads]]) if ($(id).length !== n) options($(id), count(n));
  const words = adapter.words.map(([start, end]) => adapter.tokens.slice(start, end).join("").replaceAll("##", ""));
  $("words").replaceChildren(...words.map((word, i) => el("button", { type: "button", onclick: () => showWithout([i]) }, word)));
  $("all-words").onclick = () => showWithout(words.map((_, i) => i).slice(0, 64));
  $("deletions").replaceChildren();
  showAttributions();
  showAttention();
}

const showAttributions = () => fill($("attributions"), async () => {
  const found = await ask("/api/attributions", { ...chosen(), class: Number($("class").value) });
  const sum = found.values.reduce((a, b) => a + b, 0);
  const state = found.complete ? "" : ` It is not below 1 %: ${found.steps} steps were not enough, so read the colours with care.`;
  const rows = found.tokens.map((name, i) => [name, signed(found.values[i])]);
  return [
    coloured(found.tokens, found.values, signed),
    el("p", {}, `Integrated gradients for “${found.label}”: blue speaks for it, orange against it. The logit is ${found.output.toFixed(3)}; for a text of [PAD] tokens it is `
      + `${found.baseline.toFixed(3)}. The tokens explain ${signed(sum)} of the difference ${signed(found.output - found.baseline)}: `
      + `the completeness gap is ${(100 * found.gap).toFixed(3)} % after ${found.steps} steps.${state}`),
    el("details", {}, el("summary", {}, "As numbers"), table("Contributions", ["token", "contribution"], rows))];
});

const showAttention = () => fill($("attention"), async () => {
  const found = await ask("/api/attention", { ...chosen(), layer: Number($("layer").value), head: Number($("head").value) });
  const query = Math.min(Number($("query").value || 0), found.queries.length - 1);
  options($("query"), found.queries.map((name, i) => `${i} ${name}`));
  $("query").value = query;
  const row = el("div", {});
  const draw = () => row.replaceChildren(coloured(found.keys, found.probabilities[$("query").value], percent));
  $("query").onchange = draw;
  draw();
  const canvas = el("canvas", { class: "heat", width: found.keys.length, height: found.queries.length, role: "img",
    "aria-label": `Probabilities of layer ${found.layer}, head ${found.head}: a row for each token that looks, a column for each that is seen` });
  const picture = canvas.getContext("2d");
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--link");
  picture.fillStyle = ink;
  found.probabilities.forEach((all, y) => all.forEach((p, x) => {
    // The root shows small probabilities too.
    picture.globalAlpha = Math.sqrt(p);
    picture.fillRect(x, y, 1, 1);
  }));
  return [row, canvas];
});

const showWithout = (words) => fill($("deletions"), async () => {
  const found = await ask("/api/deletion", { ...chosen(), words });
  const wanted = Number($("class").value);
  const change = ({ scores }) => scores[wanted] - found.scores[wanted];
  const rows = found.without.sort((a, b) => Math.abs(change(b)) - Math.abs(change(a)));
  const head = ["without", $("class").selectedOptions[0].textContent, "change"];
  return table("Deletions", head, [["(whole text)", score(chosen().adapter, found.scores[wanted]), ""],
    ...rows.map((row) => [row.text, score(chosen().adapter, row.scores[wanted]), signed(change(row))])]);
});

function showHistory() {
  $("export").disabled = false;
  const line = ({ text, answers }) => el("li", {}, el("button", { type: "button", onclick: () => { $("text").value = text; classify(text); } }, text.slice(0, 80)),
    ` ${answers.map(({ name, labels, scores }) => `${name}: ${labels[likeliest(scores)]}`).join(", ")}`);
  $("history").replaceChildren(...session.history.map(line).reverse());
}

function exportHistory() {
  const blob = new Blob([JSON.stringify({ server: session.info.version, history: session.history }, null, 1)], { type: "application/json" });
  const link = el("a", { href: URL.createObjectURL(blob), download: "lowrank-session.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A line of values over steps, with the ends of both axes.
function plot(name, points, y) {
  const shown = points.filter((p) => Number.isFinite(p[y]));
  if (!shown.length) return null;
  const [low, high] = [Math.min(...shown.map((p) => p[y])), Math.max(...shown.map((p) => p[y]))];
  const x0 = shown[0].step, x1 = shown[shown.length - 1].step;
  const at = (p) => `${60 + (250 * (p.step - x0)) / (x1 - x0 || 1)} ${110 - (95 * (p[y] - low)) / (high - low || 1)}`;
  const svg = svgElement("svg", { viewBox: "0 0 320 130", role: "img", "aria-label": `${name}: ${shown[shown.length - 1][y]} at step ${x1}` });
  const number = (x) => (x === 0 || (Math.abs(x) >= 0.01 && Math.abs(x) < 1e4) ? x.toFixed(3) : x.toExponential(1));
  const label = (x, y, text, more) => svgElement("text", { x, y, ...more }, text);
  svg.append(svgElement("path", { d: `M${shown.map(at).join("L")}` }), label(2, 18, number(high)), label(2, 112, number(low)),
    label(60, 127, `step ${x0}`), label(310, 127, `${x1}`, { "text-anchor": "end" }));
  return el("figure", {}, el("figcaption", {}, name), svg);
}

async function watch() {
  try {
    const run = await ask("/api/watch");
    const clock = (s) => (s === null ? "unknown" : s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
    const words = { waiting: "No state is saved yet.", training: `Step ${run.step} of ${run.steps}; time left: ${clock(run.seconds_left)}.`, finished: "The run is finished." };
    $("run").replaceChildren(el("h2", {}, run.folder), el("p", { role: "status" }, words[run.state]),
      el("div", { class: "plots" }, [["Loss", "loss"], ["Learning rate", "lr"], ["Gradient norm", "grad_norm"]].map(([name, key]) => plot(name, run.points, key))),
      run.epochs.length ? table("Accuracy after each epoch", ["epoch", "texts", "accuracy"], run.epochs.map((e) => [e.epoch, e.texts, percent(e.accuracy)])) : "");
    if (run.state !== "finished" && !$("watch").hidden) setTimeout(watch, 2000);
  } catch (error) {
    $("run").replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
  }
}

// Tabs: the arrow keys go from one to the next.
const tabs = [...document.querySelectorAll("[role=tab]")];
function open(tab) {
  for (const other of tabs) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
  if (tab.id === "tab-step" && !$("steps").dataset.drawn) {
    $("steps").dataset.drawn = "yes";
    ask("/api/step").then((steps) => drawSteps($("steps"), steps), (error) => $("steps").replaceChildren(el("p", { class: "error" }, error.message)));
  }
  if (tab.id === "tab-watch") watch();
}
tabs.forEach((tab) => {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const shown = tabs.filter((other) => !other.hidden);
    const next = shown[(shown.indexOf(tab) + step + shown.length) % shown.length];
    next.focus();
    open(next);
  });
});

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  classify($("text").value);
});
$("text").addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && $("form").requestSubmit());
$("adapter").addEventListener("change", showAdapter);
$("class").addEventListener("change", () => { showAttributions(); $("deletions").replaceChildren(); });
$("layer").addEventListener("change", showAttention);
$("head").addEventListener("change", showAttention);
$("export").addEventListener("click", exportHistory);
ask("/info").then((info) => {
  session.info = info;
  $("tab-watch").hidden = !info.watching;
  if (!info.adapters.length) open($("tab-watch"));
}, (error) => ($("status").textContent = error.message));
