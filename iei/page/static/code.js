// The request for the chosen input, written for curl, for Python and for OpenAI's client.

import { hasKey, root, routeOf } from "./api.js";
import { $, copy, make } from "./dom.js";
import { poolingFor, selectedItem } from "./items.js";
import { state, watch } from "./state.js";

const LANGUAGES = { curl, Python: python, "OpenAI client": openai };

let language = "curl";

export function start() {
  watch(({ items, selected, info, pooling }) => [items, selected, info, pooling], show);
  $("copy").addEventListener("click", ({ target }) => copy($("snippet").textContent, target, $("snippet")));
  $("languages").append(
    ...Object.keys(LANGUAGES).map((name) => make("button", { class: "plain", onclick: () => choose(name) }, name)),
  );
  choose(language);
}

function choose(name) {
  language = name;
  for (const button of $("languages").children)
    button.setAttribute("aria-pressed", String(button.textContent === name));
  show(state);
}

function show({ info, models }) {
  const item = selectedItem();
  $("code").hidden = !item || !info?.[item.kind];
  if ($("code").hidden) return;
  const model = info.model_name === models[0] ? null : info.model_name;
  $("snippet").textContent = LANGUAGES[language]({
    item,
    model,
    name: info.model_name,
    pooling: poolingFor(item),
  });
}

const base = root.href.replace(/\/$/, "");
const urlOf = (model, route) => (model ? routeOf(model, route).href : `${base}/${route}`);
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const string = JSON.stringify; // of Python, too
const mediaType = ({ file }) => file.type || "image/jpeg"; // which is not looked at

function curl({ item, model, pooling }) {
  const key = hasKey() ? ` \\\n  -H "Authorization: Bearer $IEI_API_KEY"` : "";
  if (item.kind === "image") {
    const query = pooling ? `?pooling=${pooling}` : "";
    const path = /^[\w.-]+$/.test(item.name) ? item.name : `"${item.name.replaceAll(/["\\]/g, "\\$&")}"`;
    return `curl ${quoted(urlOf(model, "embed") + query)}${key} \\\n  -F ${quoted(`image=@${path}`)}`;
  }
  const body = JSON.stringify({ inputs: [item.text], modality: "text", ...(pooling && { pooling }) });
  const type = "-H 'Content-Type: application/json'";
  return `curl ${quoted(urlOf(model, "embed"))}${key} \\\n  ${type} \\\n  -d ${quoted(body)}`;
}

function python({ item, model, pooling }) {
  const lines = [...(hasKey() ? ["import os", ""] : []), "import httpx", ""];
  const headers = hasKey() ? `, headers={"Authorization": f"Bearer {os.environ['IEI_API_KEY']}"}` : "";
  const url = string(urlOf(model, "embed"));
  if (item.kind === "image") {
    const query = pooling ? `, params={"pooling": ${string(pooling)}}` : "";
    lines.push(`with open(${string(item.name)}, "rb") as picture:`);
    lines.push(`    response = httpx.post(${url}, files={"image": picture}${query}${headers})`);
  } else {
    const more = pooling ? `, "pooling": ${string(pooling)}` : "";
    lines.push(`body = {"inputs": [${string(item.text)}], "modality": "text"${more}}`);
    lines.push(`response = httpx.post(${url}, json=body${headers})`);
  }
  return [...lines, "response.raise_for_status()", "(vector,) = response.json()", "print(len(vector))"].join("\n");
}

function openai({ item, name, pooling }) {
  const isImage = item.kind === "image";
  const key = hasKey() ? `os.environ["IEI_API_KEY"]` : `"none"`;
  const imports = [...(isImage ? ["import base64"] : []), ...(hasKey() ? ["import os"] : [])];
  const lines = [...imports, ...(imports.length ? [""] : []), "from openai import OpenAI", ""];
  lines.push(`client = OpenAI(base_url=${string(`${base}/v1`)}, api_key=${key})`);
  if (isImage) {
    lines.push(`with open(${string(item.name)}, "rb") as picture:`);
    lines.push(`    encoded = base64.b64encode(picture.read()).decode()`);
  }
  const input = isImage ? `f"data:${mediaType(item)};base64,{encoded}"` : string(item.text);
  lines.push(`answer = client.embeddings.create(model=${string(name)}, input=${input})`);
  lines.push("vector = answer.data[0].embedding  # of length 1");
  if (pooling) lines.push("# OpenAI's API has no pooling: this is the model's own");
  return [...lines, "print(len(vector))"].join("\n");
}
