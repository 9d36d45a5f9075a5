// A picture, and over the part of it that the model sees a canvas with one pixel per patch.

import { make } from "./dom.js";
import { seen } from "./geometry.js";

// Returns { picture, lens, canvas }; `lens` has the canvas, and goes over the picture.
export function lensOn(item, image) {
  const canvas = make("canvas");
  const lens = make("div", { class: "lens" }, canvas);
  const box = seen(image, item.width ?? 1, item.height ?? 1);
  for (const side of ["left", "top", "width", "height"]) lens.style[side] = `${box[side] * 100}%`;
  const picture = item.preview
    ? make("img", { src: item.preview, alt: "", width: item.width, height: item.height })
    : make("span", { class: "blank" });
  return { picture, lens, canvas };
}

// `colourAt`: index of a patch → [red, green, blue]
export function paint(canvas, [rows, columns], colourAt) {
  Object.assign(canvas, { width: columns, height: rows });
  const image = new ImageData(columns, rows);
  for (let at = 0; at < rows * columns; at++) image.data.set([...colourAt(at), 255], at * 4);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
