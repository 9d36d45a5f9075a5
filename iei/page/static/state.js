// What the page shows, in one object. Whoever changes it calls `update`; views `watch` the parts that they show.

export const state = {
  models: [], // names, the default one first
  info: null, // what /info says of the chosen model
  pooling: "", // as chosen
  items: [], // pictures and texts: items.js
  selected: null, // one of the items
};

const views = [];
let scheduled = false;

export function update(changes) {
  Object.assign(state, changes);
  if (scheduled) return;
  scheduled = true;
  queueMicrotask(() => {
    scheduled = false;
    for (const view of views) refresh(view);
  });
}

// Calls `show` after each update that changed one of the values in the list that `parts` returns.
export function watch(parts, show) {
  views.push({ parts, show, before: [] });
}

function refresh(view) {
  const now = view.parts(state);
  if (now.length === view.before.length && now.every((value, at) => Object.is(value, view.before[at]))) return;
  view.before = now;
  view.show(state);
}
