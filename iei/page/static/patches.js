// The patch view: what a model sees where. Principal components as colours, and the likeness to one patch as heat.

import { ApiError, tokens } from "./api.js";
import { heat } from "./colour.js";
import { $, make, walked } from "./dom.js";
import { seen } from "./geometry.js";
import { isComputed, selectedItem } from "./items.js";
import { watch } from "./state.js";
import { cosine, range, rowsOf, share } from "./vectors.js";

const worker = new Worker(new URL("pca-worker.js", import.meta.url), { type: "module" });

// What is shown: { id, model, rows, columns, patches: [Float32Array, …], colours, explained, heated, cursor }.
let view = null;
let running = new AbortController();

export function start() {
  watch(({ selected, info, items }) => [selected, info, items.find(({ id }) => id === selected)?.vector], load);
  worker.addEventListener("message", ({ data }) => {
    if (data.id !== view?.id) return;
    Object.assign(view, data);
    paint();
  });
  $("components").addEventListener("click", () => heatBy(null));
  $("opacity").addEventListener("input", setOpacity);
  $("stage").addEventListener("click", (event) => {
    const place = placeOf(event);
    if (place) heatBy(place);
  });
  $("stage").addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    if (place) moveTo(place);
  });
  $("stage").addEventListener("keydown", onKey);
}

async function load({ info }) {
  running.abort();
  running = new AbortController();
  const item = selectedItem();
  const isSame = view && item?.id === view.id && info === view.info;
  const grid = info?.image?.patches;
  const isShown = item?.kind === "image" && isComputed(item) && grid;
  $("patches").hidden = !isShown;
  if (!isShown || isSame) return;
  view = { id: item.id, info, rows: grid[0], columns: grid[1], patches: [], cursor: { row: 0, column: 0 }, heated: null };
  stage(item, seen(info.image, item.width ?? 1, item.height ?? 1));
  $("patch").textContent = "Asking for the patches …";
  const { signal } = running;
  try {
    const { values, shape } = await tokens(info.model_name, item, signal);
    if (signal.aborted) return;
    const [, count, dim] = shape;
    const skipped = count - view.rows * view.columns; // class and register tokens come first
    const patches = values.subarray(skipped * dim);
    view.patches = rowsOf(patches, dim);
    worker.postMessage({ values: patches, dim, id: item.id });
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof ApiError)) throw error;
    $("patch").textContent = error.message;
  }
}

// The picture, and over what the model sees of it a canvas with one pixel per patch.
function stage(item, box) {
  const lens = make("div", { class: "lens" }, make("canvas", { id: "overlay" }), make("span", { id: "picked" }), make("span", { id: "cursor" }));
  for (const side of ["left", "top", "width", "height"]) lens.style[side] = `${box[side] * 100}%`;
  const picture = item.preview
    ? make("img", { src: item.preview, alt: "", width: item.width, height: item.height })
    : make("span", { class: "blank" });
  $("stage").replaceChildren(picture, lens);
  $("stage").style.aspectRatio = item.preview ? `${item.width} / ${item.height}` : "1";
  $("stage").setAttribute("aria-label", `Patches of ${item.name}, ${view.rows} rows of ${view.columns}`);
  setOpacity();
}

function paint() {
  const { rows, columns, heated } = view;
  const overlay = $("overlay");
  Object.assign(overlay, { width: columns, height: rows });
  const image = new ImageData(columns, rows);
  for (let at = 0; at < rows * columns; at++) {
    const colour = heated ? heat(share(heated.cosines[at], heated.span)) : view.colours.subarray(at * 3, at * 3 + 3);
    image.data.set([...colour, 255], at * 4);
  }
  overlay.getContext("2d").putImageData(image, 0, 0);
  overlay.dataset.shows = heated ? "likeness" : "components";
  $("components").setAttribute("aria-pressed", String(!heated));
  $("picked").hidden = !heated;
  if (heated) frame($("picked"), heated.place);
  moveTo(view.cursor);
  tell();
}

function heatBy(place) {
  if (!view?.patches.length || !view.colours) return;
  view.heated = null;
  if (place) {
    const chosen = view.patches[indexOf(place)];
    const cosines = view.patches.map((patch) => cosine(chosen, patch));
    // Coloured over the range of the others: the patch itself, at 1, would leave them all dark.
    view.heated = { place, cosines, span: range(cosines.filter((_, at) => at !== indexOf(place))) };
    view.cursor = place;
  }
  paint();
}

const indexOf = ({ row, column }) => row * view.columns + column;
const said = ({ row, column }) => `row ${row + 1}, column ${column + 1}`;

function tell() {
  const { heated, cursor, explained } = view;
  if (!heated) {
    const parts = explained.map((part) => `${Math.round(part * 100)} %`);
    $("patch").textContent = `Red, green and blue are ${parts.join(", ")} of the variance of ${view.patches.length} patches.`;
    return;
  }
  const value = heated.cosines[indexOf(cursor)];
  const isItself = indexOf(cursor) === indexOf(heated.place);
  $("patch").textContent = isItself
    ? `Like the patch in ${said(heated.place)}: cosines from ${heated.span[0].toFixed(3)} to ${heated.span[1].toFixed(3)}.`
    : `The patch in ${said(cursor)} to that in ${said(heated.place)}: cosine ${value.toFixed(3)}.`;
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

function placeOf({ clientX, clientY }) {
  if (!view || !$("overlay")) return null;
  const box = $("overlay").getBoundingClientRect();
  const column = Math.floor(((clientX - box.left) / box.width) * view.columns);
  const row = Math.floor(((clientY - box.top) / box.height) * view.rows);
  return row >= 0 && row < view.rows && column >= 0 && column < view.columns ? { row, column } : null;
}

function setOpacity() {
  if ($("overlay")) $("overlay").style.opacity = $("opacity").value / 100;
}
