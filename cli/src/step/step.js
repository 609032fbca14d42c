"use strict";
// An element with properties, and children that are elements or texts. A text is never read as HTML.
function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

// An element of SVG.
function svgElement(tag, properties, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(properties).forEach(([name, value]) => element.setAttribute(name, value));
  element.textContent = text || "";
  return element;
}

const thousands = (n) => n.toLocaleString("en-US");
const mega = (flops) => `${(flops / 1e6).toFixed(2)} MFLOP`;
// "distilbert.transformer.layer.0.attention.q_lin+distilbert.transformer.layer.0.attention.k_lin" becomes "layer.0.attention.q_lin + k_lin".
const short = (layer) => layer.replace(/(distil)?bert\.(transformer\.|encoder\.)?/, "").replace(/\+[^+]*\./g, " + ") || "loss";
// A weight's name inside of its layer.
const inside = (name) => name.replace(/^(distil)?bert\.((transformer|encoder)\.layer\.\d+\.|embeddings\.)?((attention|ffn)\.)?(self\.)?/, "");
const list = (items) => el("ul", {}, items);

// A table with a caption for those who do not see it. Cells are texts; all but the first column are right-aligned.
function table(caption, head, rows) {
  const cell = (tag, scope) => (text, i) => el(tag, { class: i ? "n" : null, scope }, String(text));
  const row = (cells) => el("tr", {}, cells.map((text, i) => (i ? cell("td")(text, i) : cell("th", "row")(text, i))));
  return el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("thead", {}, el("tr", {}, head.map(cell("th", "col")))), el("tbody", {}, rows.map(row))));
}

// What an operation does in one of the two steps, forward or backward.
function describe(step, op, backward) {
  if (!backward) {
    const kept = { model: "a weight, which costs no memory", shared: "another operation saved it too", own: null };
    const saved = op.saved.map((s) => el("li", {}, el("code", {}, s.name), `, ${kept[s.memory] || `${thousands(s.bytes)} bytes`}: ${s.why}`));
    const nothing = op.gradient ? "Saves nothing: its rule needs no value." : "Saves nothing: no gradient comes here.";
    return [el("h3", {}, step.title), saved.length ? list(saved) : el("p", {}, nothing), el("p", { class: "quiet" }, `forward ${mega(op.flops[0])}`)];
  }
  if (!op.gradient) return [el("h3", {}, step.title), el("p", { class: "stops" }, "No gradient comes here: nothing below it trains.")];
  const inputs = op.inputs.filter((input) => input.kind !== "data").map((input) => {
    const word = { trained: "trained", frozen: "frozen: the gradient stops here", value: input.gradient ? "goes on" : "nothing below trains: the gradient stops here" };
    return el("li", { class: input.gradient ? "flows" : "stops" }, el("code", {}, inside(input.name)), `: ${word[input.kind]}`);
  });
  return [el("h3", {}, step.title), list(inputs), el("p", { class: "quiet" }, `backward ${mega(op.flops[1])}, spared ${mega(op.flops[2])}`)];
}

// Lines from an operation to those that read its output, if they are not neighbours: the residual connections.
function drawEdges(svg, graph, rows, operations) {
  svg.replaceChildren();
  svg.setAttribute("width", 44);
  svg.setAttribute("height", graph.scrollHeight);
  const middle = (row) => row.offsetTop + row.offsetHeight / 2;
  operations.forEach((op, i) => {
    for (const input of op.inputs.filter((input) => input.from !== null)) {
      const [from, to, right] = [middle(rows[input.from]), middle(rows[i]), 40];
      const bend = i - input.from === 1 ? 6 : Math.min(36, 12 + 2 * (i - input.from));
      svg.append(svgElement("path", { d: `M${right} ${from} C${right - bend} ${from} ${right - bend} ${to} ${right} ${to}` }));
    }
  });
}

// Shows two steps of the same operations side by side. The arrow keys go through forward, and then through backward.
function drawSteps(root, steps) {
  const [first] = steps;
  const n = first.operations.length;
  let at = 0;
  const svg = svgElement("svg", { "aria-hidden": "true" });
  const graph = el("div", { class: "graph", role: "listbox", tabindex: 0, "aria-label": "Operations of the step. Arrow keys: forward, then backward" }, svg);
  const rows = first.operations.map((op, i) =>
    el("div", { class: "op", role: "option", id: `op-${i}`, "aria-selected": "false", onclick: () => go(i) }, el("span", {}, op.name), el("span", {}), el("span", {})));
  let layer = null;
  first.operations.forEach((op, i) => {
    if (op.layer !== layer) graph.append(el("div", { class: "layer", role: "presentation" }, short(op.layer)));
    layer = op.layer;
    graph.append(rows[i]);
  });
  // The first word of a title is enough above a narrow column.
  const heads = el("div", { class: "op heads", "aria-hidden": "true" }, el("span", {}), steps.map((step) => el("span", {}, step.title.split(" ")[0])));
  const where = el("span", { class: "where", role: "status" });
  const detail = el("div", { class: "detail" });
  const saved = (op) => op.saved.filter((s) => s.memory === "own").reduce((sum, s) => sum + s.bytes, 0);

  function go(to, scroll) {
    at = Math.max(0, Math.min(2 * n - 1, to));
    const backward = at >= n;
    const current = backward ? 2 * n - 1 - at : at;
    rows.forEach((row, i) => {
      row.setAttribute("aria-selected", String(i === current));
      row.classList.toggle("done", !backward && i <= current);
      row.classList.toggle("back", backward && i >= current);
      steps.forEach((step, s) => {
        const op = step.operations[i];
        const spent = !op.gradient ? "stops" : mega(op.flops[1]);
        row.children[s + 1].textContent = backward ? (i >= current ? spent : "") : i <= current ? `${thousands(saved(op))} B` : "";
      });
    });
    graph.setAttribute("aria-activedescendant", `op-${current}`);
    if (scroll) graph.scrollTop = rows[current].offsetTop - graph.clientHeight / 2;
    const op = first.operations[current];
    where.textContent = `${backward ? "backward" : "forward"}, operation ${current + 1} of ${n}`;
    const inputs = op.inputs.map((input) => el("li", {}, el("code", {}, inside(input.name)), ` ${input.shape}`));
    detail.replaceChildren(
      el("h2", {}, `${backward ? "Backward of " : ""}${op.name}`), el("p", { class: "quiet" }, short(op.layer)),
      el("p", {}, op.formula), el("p", {}, "Output ", el("code", {}, op.output)), el("h3", {}, "Inputs"), list(inputs),
      el("div", { class: "pair" }, steps.map((step) => el("div", {}, describe(step, step.operations[current], backward)))));
  }
  const keys = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  graph.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    go(at + keys[event.key], true);
  });
  const rowsOf = (name, value) => [name, ...steps.map(value)];
  root.replaceChildren(
    el("p", {}, `One step on ${first.texts} text of ${first.tokens} tokens: forward computes the loss ${first.loss.toFixed(4)}, and saves what backward will need. `
      + "Backward goes the same way back, and stops where nothing below trains."),
    table("Both ways to fine-tune", ["", ...steps.map((step) => step.title)], [
      rowsOf("trained numbers", (s) => (s.counts.match(/[\d,]+/) || [""])[0]), rowsOf("forward", (s) => mega(s.flops[0])), rowsOf("backward", (s) => mega(s.flops[1])),
      rowsOf("spared by frozen weights", (s) => mega(s.flops[2])), rowsOf("saved beside the model", (s) => `${thousands(s.saved_bytes)} bytes`), rowsOf("gradients", (s) => s.gradients)]),
    el("div", { class: "keys" }, el("button", { type: "button", onclick: () => go(at - 1, true) }, "Previous"),
      el("button", { type: "button", onclick: () => go(at + 1, true) }, "Next"), where),
    el("div", { class: "step" }, el("div", {}, heads, graph), detail));
  go(0);
  drawEdges(svg, graph, rows, first.operations);
}
