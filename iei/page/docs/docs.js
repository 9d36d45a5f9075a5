// Shows /openapi.json of the server that this page came from, with Swagger UI.

const KEY = "iei-key"; // the page at / keeps it there, too

// The page may be below the path of a proxy, or at /m/NAME/docs: then that model is the one that is tried out.
const root = new URL(".", location.href);
const $ = (id) => document.getElementById(id);

async function start() {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const response = await fetch(new URL("openapi.json", root), { headers });
  if (response.status === 401) return ask(key !== null);
  if (!response.ok) throw new Error(`openapi.json: ${response.status} ${response.statusText}`);
  show(await response.json(), key);
}

function ask(isWrong) {
  tell(isWrong ? "The API key is not one of this server's." : "");
  $("unlock").hidden = false;
  $("key").focus();
}

$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value.trim());
  begin();
});

function show(spec, key) {
  $("unlock").hidden = true;
  tell("");
  const address = root.href.replace(/\/$/, "");
  const description = spec.info.description.replaceAll("http://localhost:8000", address);
  const ui = SwaggerUIBundle({
    spec: { ...spec, info: { ...spec.info, description }, servers: [{ url: address }] },
    dom_id: "#routes",
    deepLinking: true,
    defaultModelsExpandDepth: -1, // the models of bodies are shown with their routes
    displayRequestDuration: true,
    docExpansion: "list",
    tryItOutEnabled: true,
    validatorUrl: null, // it would be another host
    onComplete: () => key && ui.preauthorizeApiKey("API key", key),
  });
}

function tell(sentence) {
  $("trouble").textContent = sentence;
  $("trouble").hidden = !sentence;
}

const begin = () => start().catch((error) => tell(error.message));
begin();
