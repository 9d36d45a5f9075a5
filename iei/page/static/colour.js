// Colours of numbers.

// From dark to bright, evenly in lightness; for heat maps on pictures.
const HEAT = ["#10103a", "#4a1a6e", "#96306f", "#d9534f", "#f59b3d", "#fdf0a6"].map(channels);

// `share` from 0 to 1 → [r, g, b]
export function heat(share) {
  const place = share * (HEAT.length - 1);
  const from = Math.min(Math.floor(place), HEAT.length - 2);
  return mixed(HEAT[from], HEAT[from + 1], place - from);
}

// The colours of the matrix, which the style sheet names for either scheme.
export function matrixColours() {
  const style = getComputedStyle(document.documentElement);
  const [low, high] = ["--low", "--high"].map((name) => channels(style.getPropertyValue(name).trim()));
  return (share) => mixed(low, high, share);
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

// Black or white, whichever is easier to read on the colour: either has a contrast of 4.5 or more (WCAG 2, AA).
export function inkOn(colour) {
  const [red, green, blue] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

function mixed(from, to, share) {
  return from.map((value, at) => Math.round(value + (to[at] - value) * share));
}

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}
