// Makes play.js, the one file that the pages load: modules cannot be loaded from a page that was opened from disk.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { build } from "esbuild";

const [page] = process.argv.slice(2); // the folder; this script runs where its packages are
const sources = readdirSync(`${page}/src`, { recursive: true })
  .filter((name) => name.endsWith(".js"))
  .sort();
const digest = createHash("sha256");
for (const name of sources) digest.update(readFileSync(`${page}/src/${name}`));
const licences = ["d3-delaunay", "delaunator"].map(
  (name) => `${name}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8")}`,
);

await build({
  entryPoints: [`${page}/src/main.js`],
  nodePaths: ["node_modules"],
  outfile: `${page}/play.js`,
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "iife",
  banner: {
    js: `/* Made by \`make play\` from src; do not edit.\nsources: ${digest.digest("hex")}\n\nIt contains, under their licences:\n\n${licences.join("\n")}\nrobust-predicates, which is in the public domain (Unlicense)\n*/`,
  },
});
