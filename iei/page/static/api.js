// Requests to the server that this page came from.

const KEY = "iei-key";

// The page may be at /, at /m/NAME/, or below the path of a proxy: all addresses are relative to what is before /m/.
const [, base, named] = /^(.*?\/)(?:m\/(.+?)\/?)?$/.exec(location.pathname);

export const root = new URL(base, location.origin);
export const modelInPath = named ? decodeURIComponent(named) : null;

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// The key is forgotten with the tab, and sent in a header: cookies would go along with requests of other pages.
export const useKey = (key) => sessionStorage.setItem(KEY, key);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

// Where a route of a model is. Names may contain slashes.
export const routeOf = (model, route) =>
  new URL(`m/${model.split("/").map(encodeURIComponent).join("/")}/${route}`, root);

export async function models() {
  const { data } = await (await call(new URL("v1/models", root))).json();
  return data.map(({ id }) => id);
}

export const info = async (model) => (await call(routeOf(model, "info"))).json();

// Returns { vector: Float32Array, times }
export async function embed(model, item, pooling, signal) {
  const { values, times } = await floats(model, "embed", item, pooling, signal);
  return { vector: values, times };
}

// All tokens of a picture, one after the other: { values: Float32Array, shape: [1, tokens, dim] }
export const tokens = (model, item) => floats(model, "embed_all", item);

// The scores of labels for each picture: [[{ label, score }, …], …]
export async function classify(model, pictures, labels, template) {
  const inputs = await Promise.all(pictures.map(({ file }) => dataUri(file)));
  const parameters = { candidate_labels: labels, hypothesis_template: template };
  return (await call(routeOf(model, "classify"), json({ inputs, parameters }))).json();
}

async function floats(model, route, item, pooling, signal) {
  const url = routeOf(model, route);
  let request;
  if (item.kind === "image") {
    const form = new FormData();
    form.append("image", item.file, item.name);
    if (pooling) url.searchParams.set("pooling", pooling);
    request = { method: "POST", body: form, headers: {} };
  } else {
    request = json({ inputs: [item.text], modality: "text", ...(pooling && { pooling }) });
  }
  request.headers.accept = "application/octet-stream";
  const started = performance.now();
  const response = await call(url, { ...request, signal });
  const values = new Float32Array(await response.arrayBuffer());
  const shape = response.headers.get("x-iei-shape").split(",").map(Number);
  return { values, shape, times: stages(response.headers, performance.now() - started) };
}

async function call(url, request = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...request.headers, ...(key && { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(url, { ...request, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server can't be reached.", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new ApiError(sentence(body) ?? `${response.status} ${response.statusText}`, response.status);
}

// Errors of /v1 have an object, those of the other routes a sentence.
const sentence = ({ error }) => error?.message ?? error;

const json = (body) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

// What each stage took, in milliseconds: [[name, ms], …]. Together they are what the browser waited.
function stages(headers, waited) {
  const ms = (name) => Number(headers.get(`x-${name}-time`) ?? 0);
  const [total, prepare, queue, model] = ["total", "preprocess", "queue", "inference"].map(ms);
  return [
    ["prepare", prepare],
    ["queue", queue],
    ["model", model],
    ["serve", Math.max(0, total - prepare - queue - model)],
    ["network", Math.max(0, waited - total)],
  ];
}

function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
