// Cosines of all pairs, as a table that is walked with the arrow keys.

import { $, make, thumbnail, walked } from "./dom.js";
import { css, inkOn, matrixColours } from "./colour.js";
import { isComputed, select, similarity } from "./items.js";
import { watch } from "./state.js";
import { range, share } from "./vectors.js";

const NOT_COMPARABLE =
  "A picture and a text are compared in the space that both share: choose the pooling pooler.";

const MOST = 32; // rows and columns: more can't be looked at

let place = { row: 0, column: 0 }; // of the cell that Tab leads to
let shown = [];

export function start() {
  watch(({ items, selected, pooling, info, scheme }) => [items, selected, pooling, info, scheme], show);
  const table = $("matrix");
  table.addEventListener("keydown", walk);
  table.addEventListener("focusin", ({ target }) => {
    if (target.matches("td")) point(target);
  });
  table.addEventListener("pointerover", ({ target }) => {
    if (target.matches("td.pair")) tell(placeOf(target));
  });
  table.addEventListener("click", ({ target }) => target.closest("td.pair")?.focus());
}

function show({ items, selected }) {
  const computed = items.filter(isComputed);
  shown = computed.slice(0, MOST);
  $("similarity").hidden = shown.length < 2;
  if (shown.length < 2) return $("matrix").replaceChildren();
  const cosines = shown.map((one) => shown.map((other) => similarity(one, other)));
  const spans = spansOf(cosines);
  const digits = digitsOf(spans);
  const colour = matrixColours();
  const isFocused = document.activeElement.matches("#matrix td");
  const columns = shown.map((item) => make("th", { scope: "col" }, make("span", {}, ...header(item))));
  const rows = shown.map((item, row) => {
    const button = make("button", { class: "plain", tabindex: -1, onclick: () => select(item) }, ...header(item));
    const cells = cosines[row].map((value, column) => cell(value, row, column, spans, digits, colour));
    const mark = item.id === selected ? "selected" : null;
    return make("tr", { class: mark }, make("th", { scope: "row" }, button), ...cells);
  });
  $("matrix").replaceChildren(
    make("thead", {}, make("tr", {}, make("td"), ...columns)),
    make("tbody", {}, ...rows),
  );
  showScale(spans, digits, colour, computed.length);
  tell(mostAlike(cosines), "Most alike");
  place = { row: Math.min(place.row, shown.length - 1), column: Math.min(place.column, shown.length - 1) };
  cellAt(place).tabIndex = 0;
  if (isFocused) cellAt(place).focus();
}

// A text is its own name; of a picture, only screen readers hear it.
function header(item) {
  return [thumbnail(item, 44), make("span", { class: item.kind === "text" ? "name" : "hearable" }, item.name)];
}

function cell(value, row, column, spans, digits, colour) {
  const attributes = { tabindex: -1, "data-row": row, "data-column": column };
  if (value === null) return make("td", { ...attributes, class: "pair none", "aria-label": NOT_COMPARABLE }, "–");
  const [one, other] = [shown[row], shown[column]];
  const name = `${one.name} and ${other.name}: cosine ${value.toFixed(4)}`;
  const kind = row === column ? "pair self" : "pair";
  const element = make("td", { ...attributes, class: kind, "aria-label": name }, value.toFixed(digits));
  if (row !== column) {
    const background = colour(share(value, spans[kindsOf(one, other)]));
    element.style.backgroundColor = css(background);
    element.style.color = inkOn(background);
  }
  return element;
}

function showScale(spans, digits, colour, count) {
  const ramp = make("span", { class: "ramp" });
  ramp.style.backgroundImage = `linear-gradient(to right, ${css(colour(0))}, ${css(colour(1))})`;
  const told = Object.entries(spans).map(([kinds, ends]) => {
    return make("span", {}, `${kinds}: ${ends.map((value) => value.toFixed(digits)).join(" to ")}`);
  });
  if (count > MOST) told.push(make("span", {}, `These are the first ${MOST} of ${count}.`));
  $("scale").replaceChildren(ramp, ...told);
}

// As many as tell the cosines apart.
function digitsOf(spans) {
  const widest = Math.max(...Object.values(spans).map(([low, high]) => high - low));
  return widest < 0.02 ? 4 : widest < 0.2 ? 3 : 2;
}

// Pictures with texts have lower cosines than pictures with pictures, so each of the blocks has colours of its own.
function spansOf(cosines) {
  const found = {};
  cosines.forEach((row, at) => {
    row.forEach((value, column) => {
      if (value !== null && column > at) (found[kindsOf(shown[at], shown[column])] ??= []).push(value);
    });
  });
  return Object.fromEntries(Object.entries(found).map(([kinds, values]) => [kinds, range(values)]));
}

const KINDS = { image: "Pictures", text: "Texts" };
const kindsOf = (one, other) => (one.kind === other.kind ? KINDS[one.kind] : "Pictures with texts");

const cellAt = ({ row, column }) => $("matrix").querySelector(`[data-row="${row}"][data-column="${column}"]`);

function point(cell) {
  cellAt(place).tabIndex = -1;
  place = placeOf(cell);
  cell.tabIndex = 0;
  tell(place);
}

const placeOf = ({ dataset }) => ({ row: Number(dataset.row), column: Number(dataset.column) });

function mostAlike(cosines) {
  const pairs = cosines.flatMap((row, at) =>
    row.map((value, column) => ({ row: at, column, value })).slice(at + 1),
  );
  return pairs.reduce((best, pair) => ((pair.value ?? -Infinity) > (best.value ?? -Infinity) ? pair : best));
}

// The pair beside the table, larger.
function tell({ row, column }, title = "This pair") {
  const [one, other] = [shown[row], shown[column]];
  const value = similarity(one, other);
  $("pair").replaceChildren(
    make("h3", {}, title),
    make("div", { class: "two" }, thumbnail(one, 88), thumbnail(other, 88)),
    make("p", { class: "large" }, value === null ? "–" : value.toFixed(4)),
    make("p", { class: "quiet" }, value === null ? NOT_COMPARABLE : `${one.name}, ${other.name}`),
  );
}

function walk(event) {
  if (!event.target.matches("td")) return;
  const size = $("matrix").tBodies[0].rows.length;
  const next = walked(event.key, place, size, size);
  if (event.key === "Enter") $("matrix").tBodies[0].rows[place.row].querySelector("button").click();
  if (!next) return;
  event.preventDefault();
  cellAt(next).focus();
}
