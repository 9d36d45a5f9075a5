// Cosines of all pairs, as a table that is walked with the arrow keys.

import { $, make, thumbnail, walked } from "./dom.js";
import { css, inkOn, matrixColours } from "./colour.js";
import { isComputed, select, similarity } from "./items.js";
import { watch } from "./state.js";
import { range, share } from "./vectors.js";

let place = { row: 0, column: 0 };

export function start() {
  watch(({ items, selected, pooling, info, scheme }) => [items, selected, pooling, info, scheme], show);
  const table = $("matrix");
  table.addEventListener("keydown", walk);
  table.addEventListener("focusin", ({ target }) => target.closest("td") && point(target.closest("td")));
  table.addEventListener("pointerover", ({ target }) => target.closest("td.pair") && tell(target.closest("td")));
  table.addEventListener("click", ({ target }) => target.closest("td.pair")?.focus());
}

function show({ items, selected }) {
  const shown = items.filter(isComputed);
  $("similarity").hidden = shown.length < 2;
  if (shown.length < 2) return $("matrix").replaceChildren();
  const cosines = shown.map((one) => shown.map((other) => similarity(one, other)));
  const span = range(cosines.flatMap((row, at) => row.filter((value, column) => column !== at && value !== null)));
  const digits = span[1] - span[0] < 0.02 ? 4 : span[1] - span[0] < 0.2 ? 3 : 2;
  const colour = matrixColours();
  const cell = (value, row, column) => {
    const attributes = { tabindex: -1, "data-row": row, "data-column": column };
    if (value === null) {
      return make("td", { ...attributes, class: "pair none", title: "not comparable" }, "–");
    }
    const element = make("td", { ...attributes, class: row === column ? "pair self" : "pair" }, value.toFixed(digits));
    element.dataset.says = `${shown[row].name} and ${shown[column].name}: cosine ${value.toFixed(4)}`;
    if (row !== column) {
      const background = colour(share(value, span));
      element.style.backgroundColor = css(background);
      element.style.color = inkOn(background);
    }
    return element;
  };
  const isFocused = $("matrix").contains(document.activeElement) && document.activeElement.matches("td");
  $("matrix").replaceChildren(
    make("thead", {}, make("tr", {}, make("td"), ...shown.map((item) => make("th", { scope: "col" }, header(item))))),
    make(
      "tbody",
      {},
      ...shown.map((item, row) =>
        make(
          "tr",
          { class: item.id === selected ? "selected" : null },
          make("th", { scope: "row" }, header(item, true)),
          ...cosines[row].map((value, column) => cell(value, row, column)),
        ),
      ),
    ),
  );
  place = { row: Math.min(place.row, shown.length - 1), column: Math.min(place.column, shown.length - 1) };
  cellAt(place).tabIndex = 0;
  if (isFocused) cellAt(place).focus();
  const [low, high] = span.map((value) => value.toFixed(digits));
  const ramp = make("span", { class: "ramp" });
  ramp.style.backgroundImage = `linear-gradient(to right, ${css(colour(0))}, ${css(colour(1))})`;
  $("scale").replaceChildren(low, ramp, high);
}

function header(item, isPicked = false) {
  const content = [thumbnail(item, 44), make("span", { class: item.kind === "text" ? "name" : "hearable" }, item.name)];
  return isPicked
    ? make("button", { class: "plain", tabindex: -1, onclick: () => select(item) }, ...content)
    : make("span", {}, ...content);
}

const cellAt = ({ row, column }) => $("matrix").querySelector(`[data-row="${row}"][data-column="${column}"]`);

function point(cell) {
  cellAt(place).tabIndex = -1;
  place = { row: Number(cell.dataset.row), column: Number(cell.dataset.column) };
  cell.tabIndex = 0;
  tell(cell);
}

function tell(cell) {
  $("pair").textContent = cell.dataset.says ?? "A picture and a text are compared in the space that both share: pooling pooler.";
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
