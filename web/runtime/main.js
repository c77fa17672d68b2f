// onnxruntime for the live page: one thread, and everything that it needs in this one script.

import * as ort from "onnxruntime-web/wasm";
import zipped from "wasm";

async function start() {
  const bytes = Uint8Array.from(atob(zipped), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = await new Response(stream).arrayBuffer();
  ort.env.wasm.numThreads = 1;
  return ort;
}

globalThis.lexelRuntime = { ready: start() };
