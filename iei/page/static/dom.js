// Elements in one line each, and what several views do with them.

export const $ = (id) => document.getElementById(id);

// make("button", { class: "plain", onclick: f, "aria-pressed": true }, "text", element, …)
// Texts are never read as HTML.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function thumbnail(item, side) {
  if (item.kind === "text") return make("span", { class: "thumb letter", "aria-hidden": "true" }, "“ ”");
  if (!item.preview) return make("span", { class: "thumb letter", "aria-hidden": "true" }, "?");
  return make("img", { class: "thumb", src: item.preview, alt: "", width: side, height: side });
}

// A bar with a label in front and a number behind. `share`: from 0 to 1; below 0 it is empty.
export function bar(label, share, number) {
  const fill = make("span", { class: "fill" });
  fill.style.inlineSize = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return [
    label,
    make("span", { class: "bar", "aria-hidden": "true" }, fill),
    make("span", { class: "number" }, number),
  ];
}

// Copies, and says so on the button. Without a secure context there is no clipboard: then `shown` is selected instead.
export async function copy(text, button, shown) {
  const said = button.dataset.says ?? (button.dataset.says = button.textContent);
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(shown);
    button.textContent = "Selected: now press Ctrl+C";
  }
  setTimeout(() => (button.textContent = said), 2500);
}

const STEPS = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  Home: [0, -Infinity],
  End: [0, Infinity],
  PageUp: [-Infinity, 0],
  PageDown: [Infinity, 0],
};

// Where a key leads from a place in a grid; null for keys that lead nowhere.
export function walked(key, { row, column }, rows, columns) {
  const step = STEPS[key];
  if (!step) return null;
  const within = (value, count) => Math.max(0, Math.min(count - 1, value));
  return { row: within(row + step[0], rows), column: within(column + step[1], columns) };
}
