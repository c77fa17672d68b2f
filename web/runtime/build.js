// Makes runtime.js: onnxruntime-web, with its WebAssembly inside, as a script that a page opened from disk can load.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { gzipAsync } from "@gfx/zopfli";
import { build } from "esbuild";

const [sources, folder] = process.argv.slice(2); // of this script, which runs where its packages are; of the page
const GLUE = "ort-wasm-simd-threaded.mjs";
const digest = createHash("sha256");
for (const name of ["build.js", "main.js", "package.json"]) digest.update(readFileSync(`${sources}/${name}`));
const { version } = JSON.parse(readFileSync("node_modules/onnxruntime-web/package.json", "utf8"));

/** Return a text with what stands in it once replaced. */
function replaced(text, old, fresh) {
  const parts = text.split(old);
  if (parts.length !== 2) throw new Error(`onnxruntime-web ${version} has ${parts.length - 1} of: ${old}`);
  return parts.join(fresh);
}

const inside = {
  name: "everything inside",
  setup(build) {
    build.onResolve({ filter: /^wasm$/ }, () => ({ path: "wasm", namespace: "zipped" }));
    build.onLoad({ filter: /.*/, namespace: "zipped" }, async () => {
      const wasm = readFileSync(`node_modules/onnxruntime-web/dist/${GLUE.replace(".mjs", ".wasm")}`);
      const zipped = await gzipAsync(wasm, { numiterations: 5 });
      return { contents: Buffer.from(zipped).toString("base64"), loader: "text" };
    });
    // It would import its glue when it starts, which a page opened from disk cannot do.
    build.onLoad({ filter: /ort\.wasm\.bundle\.min\.mjs$/ }, ({ path }) => {
      const code = replaced(readFileSync(path, "utf8"), /\(await import\(\/\*webpackIgnore:true\*\/\w+\)\)\.default/, "glue");
      return { contents: `import glue from "./${GLUE}";\n${code}` };
    });
    // What follows the export starts threads.
    build.onLoad({ filter: /ort-wasm-simd-threaded\.mjs$/ }, ({ path }) => {
      const [code] = readFileSync(path, "utf8").split("var isPthread");
      return { contents: code };
    });
  },
};

await build({
  entryPoints: [`${sources}/main.js`],
  nodePaths: ["node_modules"],
  outfile: `${folder}/runtime.js`,
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "iife",
  legalComments: "none",
  define: { "import.meta.url": '"lexel:/"' }, // a script has none; onnxruntime only takes it apart
  external: ["module", "worker_threads"], // which it asks for in Node alone
  plugins: [inside],
  banner: {
    js: `/* Made by \`make runtime\` from web/runtime; do not edit.
sources: ${digest.digest("hex")}

It contains onnxruntime-web ${version}, under this licence:

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

The file ThirdPartyNotices.txt of its repository names what it is built from in its turn.
*/`,
  },
});
