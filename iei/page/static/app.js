// The start of the page: the model, the key, and all views.

import * as api from "./api.js";
import * as chosen from "./chosen.js";
import * as code from "./code.js";
import * as intake from "./intake.js";
import * as labels from "./labels.js";
import * as matrix from "./matrix.js";
import * as patches from "./patches.js";
import * as tray from "./tray.js";
import { $, make } from "./dom.js";
import { recompute } from "./items.js";
import { state, update, watch } from "./state.js";

for (const part of [intake, tray, matrix, chosen, patches, labels, code]) part.start();

watch(({ info }) => [info], showModel);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) =>
  update({ scheme: matches }),
);

$("model").addEventListener("change", ({ target }) => attempt(() => useModel(target.value)));
$("pooling").addEventListener("change", ({ target }) => {
  update({ pooling: target.value });
  recompute();
});
$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey($("key").value.trim());
  $("key").value = "";
  attempt(open);
});

attempt(open);

async function open() {
  const models = await api.models();
  update({ models });
  $("model").replaceChildren(...models.map((name) => make("option", {}, name)));
  await useModel(models.includes(api.modelInPath) ? api.modelInPath : models[0]);
}

async function useModel(name) {
  $("model").value = name;
  $("facts").textContent = `Asking for ${name} …`; // which may have to be loaded
  const info = await api.info(name);
  if ($("model").value !== name) return; // another one was chosen meanwhile
  update({ info, pooling: info.pooling });
  recompute();
}

// Runs what the whole page needs, and shows why it failed. A missing key is asked for.
async function attempt(action) {
  $("trouble").hidden = true;
  try {
    await action();
    $("unlock").hidden = true;
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    const isLocked = error.status === 401;
    $("unlock").hidden = !isLocked;
    $("trouble").hidden = isLocked && !api.hasKey();
    $("trouble").textContent = error.message;
    if (isLocked) $("key").focus();
    $("facts").textContent = "";
    if (state.info) {
      $("model").value = state.info.model_name; // the vectors on the page are still those of this one
      showModel(state);
    }
  }
}

function showModel({ info }) {
  if (!info) return;
  document.body.removeAttribute("data-waiting");
  document.title = `IEI: ${info.model_name}`;
  const takes = info.modalities.map((name) => (name === "image" ? "pictures" : "texts")).join(" and ");
  $("facts").textContent =
    `${info.model_type}, takes ${takes}; ${info.dim} dimensions; ${info.runtime} on ${info.device}, ${info.dtype}`;
  $("demo").hidden = !info.demo;
  $("write").hidden = !info.text;
  $("drop").hidden = !info.image;
  $("pooling").replaceChildren(
    ...Object.keys(info.poolings).map((name) =>
      make("option", { value: name }, name === info.pooling ? `${name} (default)` : name),
    ),
  );
  $("pooling").value = state.pooling;
  $("version").textContent = `IEI ${info.version}`;
  $("info-link").href = api.routeOf(info.model_name, "info");
}
