// Where inputs lie. The plane that is seen reaches from −1.6 to 1.6, and from −1.2 to 1.2.

import { D, pick } from "./quantizer.js";

function normal(uniform) {
  return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

function points(count, one) {
  const rows = new Float32Array(count * D);
  for (let i = 0; i < count; i++) rows.set(one(i), i * D);
  return rows;
}

const CENTRES = [
  [-0.95, 0.6],
  [0.15, 0.7],
  [1.0, 0.3],
  [-0.5, -0.55],
  [0.65, -0.65],
];

export const samples = {
  blobs: (count, uniform) =>
    points(count, (i) => CENTRES[i % CENTRES.length].map((centre) => centre + 0.12 * normal(uniform))),
  ring: (count, uniform) =>
    points(count, () => {
      const [angle, radius] = [2 * Math.PI * uniform(), 0.85 + 0.06 * normal(uniform)];
      return [radius * Math.cos(angle), radius * Math.sin(angle)];
    }),
  moons: (count, uniform) =>
    points(count, (i) => {
      const [angle, side] = [Math.PI * uniform(), i % 2 ? 1 : -1];
      const [x, y] = [Math.cos(angle) * 0.8 * side + 0.4 * side, (0.85 * Math.sin(angle) - 0.35) * side];
      return [x + 0.06 * normal(uniform), y + 0.06 * normal(uniform)];
    }),
};

export const LARGEST_IMAGE = 40e6; // bytes
const SIDE = 96; // pixels of the copy whose colours are taken

/**
 * Colours of an image as points: red against green to the right, blue against yellow upwards; grey lies at the origin.
 * Throws an Error whose message is a key of the table of strings.
 */
export async function coloursOf(file, count, uniform) {
  if (file.size > LARGEST_IMAGE) throw new Error("image.large");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { resizeWidth: SIDE, resizeHeight: SIDE, resizeQuality: "medium" });
  } catch {
    throw new Error("image.none");
  }
  const context = new OffscreenCanvas(SIDE, SIDE).getContext("2d");
  context.drawImage(bitmap, 0, 0, SIDE, SIDE);
  bitmap.close();
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  const chosen = pick(count, SIDE * SIDE, uniform).map((pixel) => [...data.slice(pixel * 4, pixel * 4 + 3)]);
  return { inputs: points(count, (i) => place(chosen[i])), colours: chosen.map((rgb) => `rgb(${rgb.join(" ")})`) };
}

function place([red, green, blue]) {
  return [((red - green) / 255) * 2, ((blue - (red + green) / 2) / 255) * 1.8];
}
