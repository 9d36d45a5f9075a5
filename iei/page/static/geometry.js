// Which part of a picture a model sees. The rules are those of iei/inputs/geometry.py.

// Args: `image` of /info; width and height of the picture.
// Returns { left, top, width, height } as fractions of the picture. A crop larger than the picture goes beyond it.
export function seen(image, width, height) {
  const [resizedWidth, resizedHeight] = resized(image, width, height);
  if (!image.crop) return { left: 0, top: 0, width: 1, height: 1 };
  const [cropHeight, cropWidth] = image.crop;
  return {
    left: Math.floor((resizedWidth - cropWidth) / 2) / resizedWidth,
    top: Math.floor((resizedHeight - cropHeight) / 2) / resizedHeight,
    width: cropWidth / resizedWidth,
    height: cropHeight / resizedHeight,
  };
}

function resized(image, width, height) {
  const [toHeight, toWidth] = image.resized;
  if (image.resize === "none") return [width, height];
  if (image.resize === "exact") return [toWidth, toHeight];
  return width <= height
    ? [toHeight, Math.floor((toHeight * height) / width)]
    : [Math.floor((toHeight * width) / height), toHeight];
}
