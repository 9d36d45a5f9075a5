// Calls a server with JavaScript clients: node clients.mjs CLIENT URL MODEL, the inputs as JSON on stdin.
// Prints {"vectors": [...]}, or {"error": class, "status": number, "message": text}.
import { readFileSync } from "node:fs";

const [client, url, model] = process.argv.slice(2);
const inputs = JSON.parse(readFileSync(0, "utf8"));

const CLIENTS = {
  async openai() {
    const { default: OpenAI } = await import("openai");
    const api = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.API_KEY ?? "none", maxRetries: 0 });
    // Without encoding_format it asks for base64 and decodes that itself.
    const answer = await api.embeddings.create({ model, input: inputs });
    return answer.data.map((item) => item.embedding);
  },
  async huggingface() {
    const { InferenceClient } = await import("@huggingface/inference");
    const api = new InferenceClient(process.env.API_KEY, { endpointUrl: `${url}/m/${model}/embed`, retry_on_error: false });
    return await api.featureExtraction({ inputs, normalize: true });
  },
  async jina() {
    const { createJina } = await import("jina-ai-provider");
    const { embedMany } = await import("ai");
    const jina = createJina({ baseURL: `${url}/v1`, apiKey: process.env.API_KEY ?? "none" });
    const answer = await embedMany({ model: jina.textEmbeddingModel(model), values: inputs, maxRetries: 0 });
    return answer.embeddings;
  },
  async jinaImages() {
    const { createJina } = await import("jina-ai-provider");
    const { embedMany } = await import("ai");
    const jina = createJina({ baseURL: `${url}/v1`, apiKey: process.env.API_KEY ?? "none" });
    const values = inputs.map((image) => ({ image }));
    const answer = await embedMany({ model: jina.multiModalEmbeddingModel(model), values, maxRetries: 0 });
    return answer.embeddings;
  },
};

try {
  console.log(JSON.stringify({ vectors: (await CLIENTS[client]()).map((vector) => Array.from(vector)) }));
} catch (error) {
  const status = error.status ?? error.statusCode ?? error.httpResponse?.status ?? null;
  const body = error.responseBody ?? error.httpResponse?.body ?? null;
  console.log(JSON.stringify({ error: error.constructor.name, status, message: error.message, body }));
}
