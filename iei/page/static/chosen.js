// What is known of the chosen input: its neighbours, its vector, and what each stage took.

import { $, bar, copy, make, thumbnail } from "./dom.js";
import { isComputed, select, selectedItem, similarity } from "./items.js";
import { watch } from "./state.js";
import { norm, range } from "./vectors.js";

const STAGES = {
  prepare: ["Decode and resize", "Tokenize"],
  queue: ["Wait for the model", "Wait for the model"],
  model: ["Model", "Model"],
  serve: ["Read and write HTTP", "Read and write HTTP"],
  network: ["Network and browser", "Network and browser"],
};

export function start() {
  watch(({ items, selected, pooling, scheme }) => [items, selected, pooling, scheme], show);
  $("copy-vector").addEventListener("click", ({ target }) => {
    copy(JSON.stringify([...selectedItem().vector]), target, $("numbers"));
  });
}

function show({ items }) {
  const item = selectedItem();
  $("chosen").hidden = !item || !isComputed(item);
  if ($("chosen").hidden) return;
  $("chosen-title").textContent = item.name;
  showNeighbours(
    item,
    items.filter((other) => other.id !== item.id && isComputed(other)),
  );
  showVector(item);
  showStages(item);
}

function go(item) {
  select(item);
  $("chosen-title").focus(); // the button that was pressed will be gone
}

// Pictures and texts apart: the cosines of a text with pictures are lower than those with texts.
function showNeighbours(item, others) {
  const ranked = others
    .map((other) => ({ other, cosine: similarity(item, other) }))
    .filter(({ cosine }) => cosine !== null)
    .sort((one, two) => two.cosine - one.cosine);
  $("nearest").hidden = !ranked.length;
  const lists = ["image", "text"].map((kind) => {
    const found = ranked.filter(({ other }) => other.kind === kind).slice(0, 6);
    const entries = found.map(({ other, cosine }) => {
      const label = make("span", { class: "name" }, other.name);
      const content = [thumbnail(other, 36), ...bar(label, cosine, cosine.toFixed(4))];
      return make("li", {}, make("button", { class: "plain row", onclick: () => go(other) }, ...content));
    });
    return entries.length ? make("ol", {}, ...entries) : null;
  });
  $("neighbours").replaceChildren(...lists.filter(Boolean));
}

function showVector({ name, vector }) {
  const [low, high] = range(vector);
  $("numbers").textContent =
    `${vector.length} values from ${low.toFixed(3)} to ${high.toFixed(3)}, length ${norm(vector).toFixed(4)}. ` +
    `The first: ${[...vector.subarray(0, 5)].map((value) => value.toFixed(3)).join(", ")} …`;
  const canvas = $("values");
  canvas.setAttribute("aria-label", `The values of the vector of ${name}, as bars`);
  drawBars(canvas, vector, Math.max(Math.abs(low), Math.abs(high)) || 1);
}

function drawBars(canvas, vector, largest) {
  const scale = devicePixelRatio;
  const [width, height] = [(canvas.clientWidth || 300) * scale, 44 * scale];
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.fillStyle = getComputedStyle(canvas).color;
  const step = width / vector.length;
  for (let at = 0; at < vector.length; at++) {
    const length = (vector[at] / largest) * (height / 2);
    pen.fillRect(
      at * step,
      height / 2 - Math.max(0, length),
      Math.max(step * 0.8, 0.5),
      Math.max(Math.abs(length), 0.5),
    );
  }
}

function showStages({ kind, times }) {
  const total = times.reduce((sum, [, ms]) => sum + ms, 0);
  const strip = times.map(([name, ms]) => {
    const part = make("span", { class: `stage-${name}` });
    part.style.flexGrow = ms / total;
    return part;
  });
  const rows = times.map(([name, ms]) => [
    make("dt", { class: `stage-${name}` }, STAGES[name][kind === "text" ? 1 : 0]),
    make("dd", {}, `${ms.toFixed(1)} ms`),
  ]);
  $("stages").replaceChildren(
    make("div", { class: "strip", "aria-hidden": "true" }, ...strip),
    make("dl", {}, ...rows.flat(), make("dt", {}, "Together"), make("dd", {}, `${total.toFixed(1)} ms`)),
  );
}
