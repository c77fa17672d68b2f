// Makes the script and the style sheet that a page loads, one file each: a page that was opened from disk loads no modules.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { build } from "esbuild";

// Where the files of a page go, and what they contain that others wrote.
const PAGES = {
  play: {
    folder: "docs/play",
    packages: ["d3-delaunay", "delaunator"],
    free: "robust-predicates, which is in the public domain (Unlicense)",
  },
  live: { folder: "src/lexel/export/page", packages: [] },
};

const [root, page] = process.argv.slice(2); // of the repository; this script runs where its packages are
const { folder, packages, free } = PAGES[page];
const sources = readdirSync(`${root}/web`, { recursive: true })
  .filter((name) => /^(common|PAGE)\/.*\.(js|css)$/.test(name.replace(`${page}/`, "PAGE/")))
  .sort();
const digest = createHash("sha256");
for (const name of sources) digest.update(readFileSync(`${root}/web/${name}`));
const made = `Made by \`make ${page}\` from web; do not edit.\nsources: ${digest.digest("hex")}\n`;
const licences = packages.map((name) => `${name}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8")}\n`);
const others = free ? `\nIt contains, under their licences:\n\n${licences.join("")}${free}\n` : "";

await build({
  entryPoints: ["main.js", `${page}.css`].map((name) => ({ in: `${root}/web/${page}/${name}`, out: page })),
  nodePaths: ["node_modules"],
  outdir: `${root}/${folder}`,
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "iife",
  banner: { js: `/* ${made}${others}*/`, css: `/* ${made}*/` },
});
