// What somebody keeps: files that the page itself makes.

import { element } from "../common/controls.js";

export function save(blob, photo, extension) {
  const href = URL.createObjectURL(blob);
  const name = photo.replace(/\.\w+$/, "");
  element("a", { href, download: `${name}-lexel.${extension}` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

/** The tokens of a photo, with the shape of `indices` as the encoder returns them and the model that they belong to. */
export function tokensAsJson({ photo, height, width, model, dims, indices }) {
  const facts = {
    photo: photo.name,
    size: [height, width],
    model: model.facts.model,
    codebook_sizes: model.facts.codebook_sizes,
    shape: dims,
  };
  const head = Object.entries(facts).map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  const nested = (from, [length, ...rest], indent) => {
    if (!rest.length) return `${indent}[${indices.slice(from, from + length).join(", ")}]`;
    const size = rest.reduce((product, side) => product * side, 1);
    const parts = Array.from({ length }, (_, i) => nested(from + i * size, rest, `${indent}  `));
    return `${indent}[\n${parts.join(",\n")}\n${indent}]`;
  };
  return `{\n${head.join(",\n")},\n  "indices": ${nested(0, dims, "  ").trimStart()}\n}\n`;
}
