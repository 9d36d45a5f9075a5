// Checks manifests of custom resources, a JSON list on stdin, against what is published for their kinds. Prints a list
// of what is wrong: by their types (a field that is not there, a value that is none of those), and by their schemas
// (patterns and ranges).
import { text } from "node:stream/consumers";
import ts from "typescript";

const MODULES = {
  "keda.sh/v1alpha1 ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
  "monitoring.coreos.com/v1 ServiceMonitor":
    "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
};

const manifests = JSON.parse(await text(process.stdin));
const faults = [];
const lines = [];
for (const [index, manifest] of manifests.entries()) {
  const module = MODULES[`${manifest.apiVersion} ${manifest.kind}`];
  const { [manifest.kind]: Model } = await import(module);
  try {
    new Model(manifest).validate();
  } catch (error) {
    faults.push(`${manifest.kind}: ${error.message}`);
  }
  lines.push(`import type { I${manifest.kind} as Manifest${index} } from "${module}";`);
  lines.push(`export const manifest${index}: Manifest${index} = ${JSON.stringify(manifest)};`);
}

const FILE = new URL("manifests.ts", import.meta.url).pathname; // in memory; its imports are found from here
const options = { module: ts.ModuleKind.NodeNext, noEmit: true, skipLibCheck: true, strict: true, types: [] };
const host = ts.createCompilerHost(options);
const { fileExists, getSourceFile } = host;
host.fileExists = (path) => path === FILE || fileExists(path);
host.getSourceFile = (path, ...rest) =>
  path === FILE ? ts.createSourceFile(path, lines.join("\n"), ts.ScriptTarget.ESNext) : getSourceFile(path, ...rest);
for (const { file, start, length, messageText } of ts.getPreEmitDiagnostics(ts.createProgram([FILE], options, host))) {
  const where = file?.text.slice(start, start + length) ?? "";
  faults.push(`${where}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`);
}
console.log(JSON.stringify(faults));
