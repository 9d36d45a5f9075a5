// Principal components of patches: the few directions in which they differ most, as colours.

import { dot, norm, rowsOf } from "./vectors.js";

const ROUNDS = 30;
const SETTLED = 1e-5; // 1 - cosine of a direction with that of the round before: too little to see
const CLIPPED = 0.02; // of the patches, at either end: one outlier would make all others grey

// The first `count` principal components of `values`, float32[rows · dim], by orthogonal iteration: the covariance is
// never made, so a round costs 4 · rows · dim multiplications per component.
//
// Returns { scores: count × float64[rows], explained: each component's part of the variance }.
export function principal(values, dim, count = 3) {
  const centred = centre(values, dim);
  const rows = rowsOf(centred, dim);
  const total = dot(centred, centred);
  let directions = orthonormal(Array.from({ length: count }, (_, seed) => noise(dim, seed + 1)));
  for (let round = 0; round < ROUNDS; round++) {
    const next = orthonormal(directions.map((direction) => covered(rows, direction)));
    const moved = Math.max(...next.map((direction, at) => 1 - Math.abs(dot(direction, directions[at]))));
    directions = next;
    if (moved < SETTLED) break;
  }
  const scores = directions.map((direction) => Float64Array.from(rows, (row) => dot(row, direction)));
  return { scores: scores.map(upright), explained: scores.map((each) => (total ? dot(each, each) / total : 0)) };
}

// Three components → uint8[rows · 3]: red, green and blue.
export function colours(scores) {
  const scaled = scores.map(spread);
  const result = new Uint8ClampedArray(scores[0].length * 3);
  for (let row = 0; row < scores[0].length; row++) {
    for (let band = 0; band < 3; band++) result[row * 3 + band] = 255 * scaled[band][row];
  }
  return result;
}

function centre(values, dim) {
  const mean = new Float64Array(dim);
  const count = values.length / dim;
  for (let at = 0; at < values.length; at++) mean[at % dim] += values[at] / count;
  return Float32Array.from(values, (value, at) => value - mean[at % dim]);
}

// (XᵀX) · direction
function covered(rows, direction) {
  const result = new Float64Array(direction.length);
  for (const row of rows) {
    const weight = dot(row, direction);
    for (let at = 0; at < result.length; at++) result[at] += weight * row[at];
  }
  return result;
}

// Gram–Schmidt. A direction without variance stays zero.
function orthonormal(vectors) {
  const done = [];
  for (const vector of vectors) {
    for (const other of done) {
      const along = dot(vector, other);
      for (let at = 0; at < vector.length; at++) vector[at] -= along * other[at];
    }
    const length = norm(vector);
    if (length > 1e-12) for (let at = 0; at < vector.length; at++) vector[at] /= length;
    done.push(vector);
  }
  return done;
}

// The same start each time, so that a picture has the same colours each time.
function noise(length, seed) {
  let state = seed * 2654435761;
  return Float64Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  });
}

// A component's sign means nothing: the longer tail is made positive.
function upright(scores) {
  const skew = scores.reduce((sum, score) => sum + score ** 3, 0);
  return skew < 0 ? scores.map((score) => -score) : scores;
}

function spread(scores) {
  const sorted = Float64Array.from(scores).sort();
  const last = sorted.length - 1;
  const [low, high] = [sorted[Math.floor(last * CLIPPED)], sorted[Math.ceil(last * (1 - CLIPPED))]];
  return scores.map((score) => (high > low ? (score - low) / (high - low) : 0.5));
}
