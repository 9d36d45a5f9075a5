// Arithmetic of vectors.

export function dot(a, b) {
  let sum = 0;
  for (let at = 0; at < a.length; at++) sum += a[at] * b[at];
  return sum;
}

export const norm = (a) => Math.sqrt(dot(a, a));

// From -1 to 1; 0 where one of them is all zeros.
export function cosine(a, b) {
  const length = norm(a) * norm(b);
  return length ? dot(a, b) / length : 0;
}

// `values`: float32[count · dim] → the count vectors, without copying them.
export const rowsOf = (values, dim) =>
  Array.from({ length: values.length / dim }, (_, row) => values.subarray(row * dim, (row + 1) * dim));

// The smallest and the largest number; [0, 1] of none.
export function range(numbers) {
  let [low, high] = [Infinity, -Infinity];
  for (const number of numbers) {
    if (number < low) low = number;
    if (number > high) high = number;
  }
  return low <= high ? [low, high] : [0, 1];
}

// Where `value` is between `low` and `high`, from 0 to 1.
export const share = (value, [low, high]) =>
  high > low ? Math.max(0, Math.min(1, (value - low) / (high - low))) : 1;
