// The patch view: what a model sees where. Principal components as colours, and the likeness to one patch as heat.

import { ApiError } from "./api.js";
import { heat } from "./colour.js";
import { $, make, walked } from "./dom.js";
import { featuresOf } from "./features.js";
import { isComputed, selectedItem } from "./items.js";
import { lensOn, paint } from "./lens.js";
import { state, watch } from "./state.js";
import { cosine, range, share } from "./vectors.js";

const MOST = 12; // other pictures that are looked through

const worker = new Worker(new URL("pca-worker.js", import.meta.url), { type: "module" });

// What is shown: { id, item, info, rows, columns, canvas, cursor: { row, column }, vectors, colours, explained,
// heated }.
// heated: null, or { place, vector, cosines, span }, the likeness to the patch at `place`.
let view = null;
let last = 0;
let isEverywhere = false;

export function start() {
  watch(({ selected, info, items }) => [selected, info, items], load);
  worker.addEventListener("message", ({ data: { id, ...components } }) => {
    if (id !== view?.id) return;
    Object.assign(view, components);
    show();
  });
  $("components").addEventListener("click", () => heatBy(null));
  $("everywhere").addEventListener("click", () => {
    isEverywhere = !isEverywhere;
    heatBy(view.heated.place);
  });
  $("opacity").addEventListener("input", () =>
    $("patches").style.setProperty("--opacity", $("opacity").value / 100),
  );
  $("stage").addEventListener("click", (event) => pointed(event, heatBy));
  $("stage").addEventListener("pointermove", (event) => pointed(event, moveTo));
  $("stage").addEventListener("keydown", onKey);
}

async function load({ info }) {
  const item = selectedItem();
  const isShown = item?.kind === "image" && isComputed(item) && info.image?.patches;
  $("patches").hidden = !isShown;
  if (!isShown || (view?.item.id === item.id && view.info === info)) return;
  const [rows, columns] = info.image.patches;
  const mine = (view = { id: ++last, item, info, rows, columns, cursor: { row: 0, column: 0 }, heated: null });
  stage();
  $("patch").textContent = "Asking for the patches …";
  try {
    const { values, dim, vectors } = await featuresOf(item, info);
    mine.vectors = vectors;
    if (view === mine) worker.postMessage({ values, dim, id: mine.id });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (view === mine) $("patch").textContent = error.message;
  }
}

function stage() {
  const { item, info, rows, columns } = view;
  const { picture, lens, canvas } = lensOn(item, info.image);
  canvas.id = "overlay";
  lens.append(make("span", { id: "picked", hidden: "" }), make("span", { id: "cursor" }));
  view.canvas = canvas;
  $("stage").replaceChildren(picture, lens);
  $("stage").style.aspectRatio = item.preview ? `${item.width} / ${item.height}` : "1";
  $("stage").setAttribute("aria-label", `Patches of ${item.name}, ${rows} rows of ${columns}`);
  $("elsewhere").replaceChildren();
  $("everywhere").hidden = true;
}

const indexOf = ({ row, column }) => row * view.columns + column;
const said = ({ row, column }) => `row ${row + 1}, column ${column + 1}`;
const heatOf = (cosines, span) => (at) => heat(share(cosines[at], span));
const likeness = (vector, vectors) => vectors.map((each) => cosine(vector, each));

function heatBy(place) {
  if (!view?.colours) return;
  view.heated = null;
  if (place) {
    const vector = view.vectors[indexOf(place)];
    const cosines = likeness(vector, view.vectors);
    // Coloured over the range of the others: the patch itself, at 1, would leave them all dark.
    view.heated = { place, vector, cosines, span: range(cosines.filter((_, at) => at !== indexOf(place))) };
    view.cursor = place;
  }
  show();
  lookElsewhere();
}

function show() {
  const { rows, columns, heated, colours, canvas } = view;
  const component = (at) => colours.subarray(at * 3, at * 3 + 3);
  paint(canvas, [rows, columns], heated ? heatOf(heated.cosines, heated.span) : component);
  canvas.dataset.shows = heated ? "likeness" : "components";
  $("components").setAttribute("aria-pressed", String(!heated));
  $("picked").hidden = !heated;
  if (heated) frame($("picked"), heated.place);
  moveTo(view.cursor);
  tell();
}

// The same patch looked for in the other pictures, in the same colours; the picture with the best match first.
async function lookElsewhere() {
  const { heated, info, item } = view;
  const others = state.items.filter((each) => each.kind === "image" && isComputed(each) && each.id !== item.id);
  $("everywhere").hidden = !heated || !others.length;
  $("everywhere").setAttribute("aria-pressed", String(isEverywhere));
  $("elsewhere").replaceChildren();
  if (!heated || !isEverywhere) return;
  const results = await Promise.allSettled(others.slice(0, MOST).map((each) => featuresOf(each, info)));
  if (view?.heated !== heated) return; // another patch was chosen meanwhile
  const found = results.flatMap(({ value, reason }, at) => {
    if (reason instanceof ApiError) return []; // the others are shown without it
    if (reason) throw reason;
    const cosines = likeness(heated.vector, value.vectors);
    return [{ other: others[at], cosines, best: range(cosines)[1] }];
  });
  heated.span = range([heated.span, ...found.map(({ cosines }) => cosines)].flat());
  show();
  found.sort((one, two) => two.best - one.best);
  $("elsewhere").replaceChildren(
    ...found.map(({ other, cosines, best }) => {
      const { picture, lens, canvas } = lensOn(other, info.image);
      paint(canvas, info.image.patches, heatOf(cosines, heated.span));
      const caption = make("figcaption", { class: "quiet" }, `${other.name}: up to ${best.toFixed(3)}`);
      return make("figure", {}, make("div", { class: "stage" }, picture, lens), caption);
    }),
  );
}

function tell() {
  const { heated, cursor, explained, vectors } = view;
  if (!heated) {
    const parts = explained.map((part) => `${Math.round(part * 100)} %`);
    $("patch").textContent =
      `Red, green and blue are ${parts.join(", ")} of the variance of ${vectors.length} patches.`;
    return;
  }
  const there = said(heated.place);
  const [low, high] = heated.span.map((value) => value.toFixed(3));
  const here = heated.cosines[indexOf(cursor)].toFixed(3);
  $("patch").textContent =
    indexOf(cursor) === indexOf(heated.place)
      ? `Like the patch in ${there}: cosines from ${low} to ${high}.`
      : `The patch in ${said(cursor)} to that in ${there}: cosine ${here}.`;
}

function moveTo(place) {
  view.cursor = place;
  frame($("cursor"), place);
  if (view.heated) tell();
}

function frame({ style }, { row, column }) {
  style.width = `${100 / view.columns}%`;
  style.height = `${100 / view.rows}%`;
  style.left = `${(column * 100) / view.columns}%`;
  style.top = `${(row * 100) / view.rows}%`;
}

function onKey(event) {
  if (!view) return;
  const next = walked(event.key, view.cursor, view.rows, view.columns);
  if (next) {
    moveTo(next);
    if (!view.heated) $("patch").textContent = `The patch in ${said(next)}. Enter shows what is like it.`;
  } else if (event.key === "Enter" || event.key === " ") heatBy(view.cursor);
  else if (event.key === "Escape") heatBy(null);
  else return;
  event.preventDefault();
}

// Calls `act` with the patch under the pointer, if there is one.
function pointed({ clientX, clientY }, act) {
  if (!view) return;
  const box = view.canvas.getBoundingClientRect();
  const column = Math.floor(((clientX - box.left) / box.width) * view.columns);
  const row = Math.floor(((clientY - box.top) / box.height) * view.rows);
  if (row >= 0 && row < view.rows && column >= 0 && column < view.columns) act({ row, column });
}
