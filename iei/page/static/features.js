// The patch features of pictures, asked for once per picture and model.

import { tokens } from "./api.js";
import { rowsOf } from "./vectors.js";

const known = new WeakMap(); // file → { info, features }: gone with the picture

// Returns a promise of { values: float32[rows · columns · dim], dim, vectors: one view of `values` per patch }.
export function featuresOf({ file, name }, info) {
  const found = known.get(file);
  if (found?.info === info) return found.features;
  const features = asked({ kind: "image", file, name }, info);
  known.set(file, { info, features });
  features.catch(() => known.delete(file)); // to be asked for again
  return features;
}

async function asked(picture, info) {
  const { values: all, shape } = await tokens(info.model_name, picture);
  const [, count, dim] = shape;
  const [rows, columns] = info.image.patches;
  const values = all.subarray((count - rows * columns) * dim); // class and register tokens come first
  return { values, dim, vectors: rowsOf(values, dim) };
}
