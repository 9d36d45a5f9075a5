// The list of what is on the page.

import { $, make, thumbnail } from "./dom.js";
import { isComputed, remove, select } from "./items.js";
import { watch } from "./state.js";

export function start() {
  watch(({ items, selected }) => [items, selected], show);
}

function show({ items, selected }) {
  document.body.toggleAttribute("data-empty", !items.length);
  $("clear").hidden = items.length < 2;
  const focused = document.activeElement.closest("#tray button");
  $("tray").replaceChildren(...items.map((item) => entry(item, item.id === selected)));
  if (focused) focusAgain(focused);
  $("status").textContent = summary(items);
}

function entry(item, isSelected) {
  const said = item.error ?? (isComputed(item) ? `${item.vector.length} values` : "computing …");
  return make(
    "li",
    { "data-id": item.id, class: item.error ? "failed" : null },
    make(
      "button",
      { class: "pick", onclick: () => select(item), "aria-current": isSelected ? "true" : null },
      thumbnail(item, 48),
      make("span", { class: "what" }, make("span", { class: "name" }, item.name), make("small", {}, said)),
    ),
    make(
      "button",
      { class: "plain remove", "aria-label": `Remove ${item.name}`, onclick: () => remove(item) },
      "×",
    ),
  );
}

// On the button that took the place of the focused one; where its item was removed, on the item that is chosen now.
function focusAgain(button) {
  const id = button.parentElement.dataset.id;
  const again = $("tray").querySelector(
    `[data-id="${id}"] .${button.classList.contains("pick") ? "pick" : "remove"}`,
  );
  (again ?? $("tray").querySelector("[aria-current]") ?? $("choose")).focus();
}

// Read out by screen readers after each change, so it is short, and names what failed.
function summary(items) {
  const left = items.filter((item) => !isComputed(item) && !item.error).length;
  const failed = items.filter(({ error }) => error);
  if (left) return `${items.length - left} of ${items.length} computed`;
  const done = items.length - failed.length;
  const parts = done ? [`${done} ${done === 1 ? "vector" : "vectors"}`] : [];
  return [...parts, ...failed.map(({ name }) => `${name} failed`)].join(", ");
}
