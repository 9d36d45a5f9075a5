// The pictures and texts on the page, and their vectors.
//
// An item is never changed, but replaced: { id, kind: "image" | "text", name, file or text, preview, width, height,
// vector, times, error }. Without a vector and an error it is being computed.

import { ApiError, embed } from "./api.js";
import { cosine } from "./vectors.js";
import { state, update } from "./state.js";

const AT_ONCE = 4; // requests; the server makes batches of them
const PREVIEW = 640; // pixels of the longer side: a dozen photos from a phone would fill its memory

let last = 0;
let running = new AbortController();
let waiting = [];
let active = 0;

export async function addPictures(files) {
  for (const file of [...files]) add([await pictureOf(file)]); // one by one: each is decoded whole
}

export function addText(text) {
  add([{ id: ++last, kind: "text", name: text, text }]);
}

export function remove(item) {
  if (item.preview) URL.revokeObjectURL(item.preview);
  const items = state.items.filter(({ id }) => id !== item.id);
  const at = state.items.indexOf(item);
  update({
    items,
    selected: state.selected === item.id ? (items[Math.min(at, items.length - 1)]?.id ?? null) : state.selected,
  });
}

export function clear() {
  for (const item of state.items) remove(item);
}

export const selectedItem = () => state.items.find(({ id }) => id === state.selected) ?? null;
export const select = (item) => update({ selected: item.id });
export const isComputed = (item) => item.vector !== undefined;

// Computes all vectors anew: the model or the pooling is another one.
export function recompute() {
  running.abort();
  running = new AbortController();
  waiting = [];
  update({ items: state.items.map(({ vector, times, error, ...item }) => item) });
  enqueue(state.items);
}

// The pooling for an item: null where the model's own, or where its side of the model does not offer the chosen one.
export function poolingFor({ kind }, { info, pooling } = state) {
  const side = info[kind];
  return pooling && side && pooling in side.poolings && pooling !== side.pooling ? pooling : null;
}

// Whether the cosine of two items means anything: of a picture and a text, only in the space that both share.
export function areComparable(one, other) {
  if (!isComputed(one) || !isComputed(other) || one.vector.length !== other.vector.length) return false;
  const { info, pooling } = state;
  return one.kind === other.kind || (info.zero_shot !== null && pooling === "pooler");
}

export const similarity = (one, other) => (areComparable(one, other) ? cosine(one.vector, other.vector) : null);

function add(items) {
  update({ items: [...state.items, ...items], selected: state.selected ?? items[0]?.id ?? null });
  enqueue(items);
}

function enqueue(items) {
  if (!state.info) return; // `recompute` follows
  waiting.push(...items.map(({ id }) => id));
  while (active < AT_ONCE && waiting.length) compute(waiting.shift());
}

async function compute(id) {
  const item = state.items.find((each) => each.id === id);
  if (!item) return;
  const { signal } = running;
  active += 1;
  try {
    const result = await resultOf(item, signal);
    if (signal.aborted) return;
    update({ items: state.items.map((each) => (each.id === id ? { ...each, ...result } : each)) });
  } finally {
    active -= 1;
    enqueue([]);
  }
}

async function resultOf(item, signal) {
  const { kind } = item;
  if (!state.info[kind])
    return { error: `${state.info.model_name} takes no ${kind === "image" ? "pictures" : "texts"}` };
  try {
    return await embed(state.info.model_name, item, poolingFor(item), signal);
  } catch (error) {
    if (!(error instanceof ApiError) && error.name !== "AbortError") throw error;
    return { error: error.message };
  }
}

async function pictureOf(file) {
  const item = { id: ++last, kind: "image", name: file.name || "pasted.png", file };
  try {
    const bitmap = await createImageBitmap(file); // upright, as the server sees it
    const scale = Math.min(1, PREVIEW / Math.max(bitmap.width, bitmap.height));
    const canvas = new OffscreenCanvas(Math.ceil(bitmap.width * scale), Math.ceil(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff"; // what transparency is laid over, there and here
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const preview = URL.createObjectURL(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 }));
    return { ...item, preview, width: bitmap.width, height: bitmap.height };
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    return item; // a format that only the server reads, such as TIFF, or no picture: then the server says so
  }
}
