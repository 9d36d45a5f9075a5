// Zero-shot labels: how well each of some texts fits each picture, as bars.

import { ApiError, classify } from "./api.js";
import { $, bar, make, thumbnail } from "./dom.js";
import { isComputed } from "./items.js";
import { state, watch } from "./state.js";

const MEANINGS = {
  softmax: "The scores of a picture add up to 100 %: one of the labels has to fit.",
  sigmoid: "Each score stands for itself: no label may fit, or several.",
};

const pictures = () => state.items.filter((item) => item.kind === "image" && isComputed(item));

export function start() {
  watch(({ info, items }) => [info?.zero_shot, items.some((item) => item.kind === "image" && item.vector)], show);
  watch(
    ({ info }) => [info],
    () => $("scores").replaceChildren(),
  );
  $("score").addEventListener("submit", (event) => {
    event.preventDefault();
    score();
  });
}

function show({ info }) {
  $("labels").hidden = !info?.zero_shot || !pictures().length;
  $("scoring").textContent = MEANINGS[info?.zero_shot] ?? "";
}

async function score() {
  const labels = $("candidates")
    .value.split(",")
    .map((label) => label.trim())
    .filter(Boolean);
  const scored = pictures();
  const { info } = state;
  $("scoring").textContent = "Scoring …";
  try {
    const answers = await classify(info.model_name, scored, labels, $("template").value);
    if (state.info !== info) return; // another model was chosen meanwhile
    $("scores").replaceChildren(...scored.map((item, at) => card(item, answers[at])));
    $("scoring").textContent = MEANINGS[info.zero_shot];
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    $("scoring").textContent = error.message;
  }
}

function card(item, scores) {
  const rows = scores.map(({ label, score: part }) => {
    const name = make("span", { class: "name" }, label);
    return make("li", { class: "row" }, ...bar(name, part, `${(part * 100).toFixed(1)} %`));
  });
  return make(
    "figure",
    {},
    thumbnail(item, 72),
    make("figcaption", {}, make("b", {}, item.name), make("ol", {}, ...rows)),
  );
}
