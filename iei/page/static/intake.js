// The ways in which pictures and texts get onto the page: files, drops, the clipboard, the camera, the keyboard.

import { $ } from "./dom.js";
import { addPictures, addText, clear } from "./items.js";

export function start() {
  for (const input of [$("files"), $("shot")]) {
    input.addEventListener("change", () => {
      addPictures(input.files);
      input.value = "";
    });
  }
  $("choose").addEventListener("click", () => $("files").click());
  $("camera").addEventListener("click", openCamera);
  $("draw").addEventListener("click", async () => addPictures(await drawn()));
  $("clear").addEventListener("click", () => {
    clear();
    $("choose").focus();
  });
  $("write").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("text").value.trim();
    if (text) addText(text);
    $("text").value = "";
  });
  addEventListener("paste", ({ clipboardData, target }) => {
    if (clipboardData.files.length) addPictures(clipboardData.files);
    else if (!target.closest("input, textarea") && !$("write").hidden) {
      const text = clipboardData.getData("text").trim();
      if (text) addText(text);
    }
  });
  startDrops();
}

// Anywhere on the page: whoever misses the area would otherwise leave the page for the picture.
function startDrops() {
  let depth = 0;
  const mark = (change) => {
    depth = change === null ? 0 : depth + change;
    document.body.toggleAttribute("data-dropping", depth > 0);
  };
  addEventListener("dragenter", () => mark(1));
  addEventListener("dragleave", () => mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(null);
    addPictures(event.dataTransfer.files);
  });
}

async function openCamera() {
  // Only on HTTPS and localhost do browsers lend pages the camera. A phone then offers its own app.
  if (!navigator.mediaDevices) return $("shot").click();
  const dialog = $("viewfinder");
  const video = dialog.querySelector("video");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    return $("shot").click(); // no camera, or it is not allowed
  }
  video.srcObject = stream;
  const take = async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
    dialog.close();
    addPictures([new File([blob], `camera-${new Date().toISOString().slice(11, 19)}.jpg`, { type: blob.type })]);
  };
  $("take").onclick = take;
  $("close").onclick = () => dialog.close();
  dialog.onclose = () => stream.getTracks().forEach((track) => track.stop());
  dialog.showModal();
}

// Pictures for those who have none at hand.
const DRAWINGS = {
  "red disc": (pen) => disc(pen, "#c8402f", 112, 112, 70),
  "orange disc": (pen) => disc(pen, "#e08a2c", 120, 104, 64),
  "blue squares": (pen) => grid(pen, 4, (x, y) => ((x + y) % 2 ? "#2f5d9b" : "#e8edf3")),
  "green squares": (pen) => grid(pen, 6, (x, y) => ((x + y) % 2 ? "#3b7d4f" : "#eef3ea")),
  stripes: (pen) => grid(pen, 8, (x) => (x % 2 ? "#6b4a86" : "#f1ecf4")),
  sunset: (pen) => {
    grid(pen, 16, (_, y) => `hsl(${20 + y * 14} 70% ${35 + y * 2}%)`);
    disc(pen, "#ffe9a8", 112, 140, 36);
  },
};

function drawn() {
  return Promise.all(
    Object.entries(DRAWINGS).map(async ([name, draw]) => {
      const canvas = new OffscreenCanvas(224, 224);
      const pen = canvas.getContext("2d");
      pen.fillStyle = "#f4f2ee";
      pen.fillRect(0, 0, 224, 224);
      draw(pen);
      return new File([await canvas.convertToBlob({ type: "image/png" })], `${name}.png`, { type: "image/png" });
    }),
  );
}

function disc(pen, colour, x, y, radius) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

function grid(pen, count, colourAt) {
  const side = 224 / count;
  for (let x = 0; x < count; x++) {
    for (let y = 0; y < count; y++) {
      pen.fillStyle = colourAt(x, y);
      pen.fillRect(x * side, y * side, side, side);
    }
  }
}
