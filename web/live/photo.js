// A photo: from a file to the pixels that Lexel reads from it.

import { element } from "../common/controls.js";
import { Complaint } from "./complaint.js";

export const SIZES = [0.1, 0.2, 0.4, 1]; // megapixels
const LONGEST = 4096; // side, in pixels
const LARGEST = 89_478_485; // pixels of a file: Pillow's limit, and so Lexel's

/**
 * Read a photo.
 *
 * Returns its name, its pixels and what a reader should know of it (`remarks`: keys and values of sentences).
 */
export async function read(blob, name, megapixels) {
  const [width, height] = await extent(blob, name);
  if (width * height > LARGEST) throw new Complaint("photo.large", { name, width, height, most: LARGEST / 1e6 });
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Complaint("photo.damaged", { name });
  }
  const scale = Math.min(1, Math.sqrt((megapixels * 1e6) / (width * height)), LONGEST / Math.max(width, height));
  const own = [width, height].map((side) => Math.max(1, Math.floor(side * scale)));
  const remarks = [];
  if (scale < 1) remarks.push(["photo.scaled", { width, height, toWidth: own[0], toHeight: own[1] }]);
  if (await animated(blob)) remarks.push(["photo.animated", {}]);
  const canvas = element("canvas", { width: own[0], height: own[1] });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, ...own);
  let { data } = context.getImageData(0, 0, ...own);
  if (scale === 1 && data.some((value, i) => i % 4 === 3 && value < 255)) data = exact(bitmap) ?? data;
  bitmap.close();
  return new Photo(name, own[0], own[1], data, remarks);
}

/** Width and height, upright, before any pixel is decoded: a small file may hold a huge picture. */
async function extent(blob, name) {
  const source = URL.createObjectURL(blob);
  const image = new Image();
  try {
    await new Promise((resolve, reject) => Object.assign(image, { onload: resolve, onerror: reject, src: source }));
  } catch {
    throw new Complaint("photo.unknown", { name });
  } finally {
    URL.revokeObjectURL(source);
  }
  if (!image.naturalWidth || !image.naturalHeight) throw new Complaint("photo.unknown", { name });
  return [image.naturalWidth, image.naturalHeight];
}

/** Whether a file has several frames; false where the browser cannot tell. */
async function animated(blob) {
  try {
    const decoder = new ImageDecoder({ data: await blob.arrayBuffer(), type: blob.type || "image/gif" });
    await decoder.tracks.ready;
    const several = decoder.tracks.selectedTrack.animated;
    decoder.close();
    return several;
  } catch {
    return false;
  }
}

/** The pixels of a picture with transparency: a 2D canvas would round colours by their alpha, WebGL does not. */
function exact(bitmap) {
  const { width, height } = bitmap;
  const gl = element("canvas").getContext("webgl2");
  if (!gl) return null;
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
  if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) return null;
  const data = new Uint8ClampedArray(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(data.buffer));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return data;
}

export class Photo {
  constructor(name, width, height, data, remarks = []) {
    Object.assign(this, { name, width, height, data, remarks });
  }

  /** The same picture at another size: scaled until it covers it, and cut at its centre. */
  covering(height, width) {
    if (width === this.width && height === this.height) return this;
    const source = element("canvas", { width: this.width, height: this.height });
    source.getContext("2d").putImageData(new ImageData(this.data, this.width, this.height), 0, 0);
    const canvas = element("canvas", { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const scale = Math.max(width / this.width, height / this.height);
    const size = [this.width * scale, this.height * scale];
    context.imageSmoothingQuality = "high";
    context.drawImage(source, (width - size[0]) / 2, (height - size[1]) / 2, ...size);
    return new Photo(this.name, width, height, context.getImageData(0, 0, width, height).data, this.remarks);
  }

  /** Numbers in [0, 1], (channels, height, width); without an alpha channel, the picture lies on white. */
  pixels(channels) {
    const count = this.width * this.height;
    const found = new Float32Array(channels * count);
    for (let i = 0; i < count; i++) {
      const [r, g, b, a] = this.data.subarray(4 * i, 4 * i + 4);
      if (channels === 4) {
        found[i] = r / 255;
        found[count + i] = g / 255;
        found[2 * count + i] = b / 255;
        found[3 * count + i] = a / 255;
        continue;
      }
      const [red, green, blue] = [onWhite(r, a), onWhite(g, a), onWhite(b, a)];
      if (channels === 1) {
        found[i] = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16) / 255; // as Pillow: ITU-R 601-2
        continue;
      }
      found[i] = red / 255;
      found[count + i] = green / 255;
      found[2 * count + i] = blue / 255;
    }
    return found;
  }
}

/** As Pillow lays a picture on paper, to the last bit. */
function onWhite(value, alpha) {
  if (alpha === 255) return value;
  const sum = value * alpha + 255 * (255 - alpha) + 128;
  return ((sum >> 8) + sum) >> 8;
}

/** Draw numbers in [0, 1] of so many channels into a canvas, or the rectangle of them that is given. */
export function paintPixels(canvas, pixels, channels, width, height, [left, top, right, bottom] = [0, 0, width, height]) {
  if (right <= left || bottom <= top) return;
  const image = new ImageData(right - left, bottom - top);
  const count = width * height;
  const plane = channels < 3 ? [0, 0, 0] : [0, 1, 2];
  let at = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const i = y * width + x;
      for (const c of plane) image.data[at++] = pixels[c * count + i] * 255; // which rounds, and clamps
      image.data[at++] = channels === 4 ? pixels[3 * count + i] * 255 : 255;
    }
  }
  canvas.getContext("2d").putImageData(image, left, top);
}
