"""The page of models: its folder is whole, its models choose in a browser what Lexel chooses, and nothing leaves it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser
from torch import Tensor

import lexel
import lexel.tokens
from lexel.cli import main
from lexel.export import export_page
from lexel.export.serve import PageServer
from lexel.export.web import PAGE
from lexel.models import VQVAE, VectorAutoencoder
from lexel.runs import load_model
from tests.commands import refused
from tests.export.test_export import SMALL, photographs, trained
from tests.report.test_page import browser

__all__ = ["browser"]  # the fixture

pytestmark = pytest.mark.usefixtures("_traced_once")

ROOT = Path(__file__).parent.parent.parent
SHOWN = ("the default", "2^62 codes, resized")  # models whose indices a photograph is compared by
MINE = "mine.html"  # a file that is in the folder already
RECEIVE = "globalThis.lexelModel = (name, content) => { globalThis.model = content; };"
ENCODE = """async (source) => {
    const ort = await lexelRuntime.ready;
    const { encoder, decoder } = model;
    const start = (text) => ort.InferenceSession.create(Uint8Array.from(atob(text), (each) => each.charCodeAt(0)));
    const picture = new Image();
    picture.src = source;
    await picture.decode();
    const { width, height } = picture;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const pixels = Float32Array.from({ length: 3 * width * height }, (_, place) => {
        const [channel, position] = [Math.floor(place / (width * height)), place % (width * height)];
        return data[4 * position + channel] / 255;
    });
    const images = new ort.Tensor("float32", pixels, [1, 3, height, width]);
    const { indices } = await (await start(encoder)).run({ images });
    const side = (pixels) => new ort.Tensor("int64", [BigInt(pixels)], []);
    const feeds = { indices, height: side(height), width: side(width) };
    const decoded = (await (await start(decoder)).run(feeds)).images;
    return [Array.from(indices.data, String), indices.dims, Array.from(decoded.data), decoded.dims];
}"""
# Each attempt to reach another address, and what the browser says that it has forbidden.
ESCAPES = """async (address) => {
    const forbidden = [];
    const make = (name, settings) => Object.assign(document.createElement(name), settings);
    document.addEventListener("securitypolicyviolation", (event) => forbidden.push(event.effectiveDirective));
    const attempts = {
        "connect-src": [() => fetch(address), () => new WebSocket(address.replace("http", "ws")),
            () => navigator.sendBeacon(address, "photo"), () => new EventSource(address)],
        "img-src": [() => Object.assign(new Image(), { src: address })],
        "script-src-elem": [() => document.head.append(make("script", { src: address }))],
        "frame-src": [() => document.body.append(make("iframe", { src: address }))],
        "form-action": [() => {
            const form = make("form", { action: address, method: "post" });
            document.body.append(form);
            form.submit();
        }],
    };
    const missed = [];
    for (const [directive, ways] of Object.entries(attempts)) {
        for (const way of ways) {
            forbidden.length = 0;
            Promise.resolve().then(way).catch(() => {}); // what is forbidden may also raise
            for (let wait = 0; wait < 200 && !forbidden.includes(directive); wait++) {
                await new Promise((resolve) => setTimeout(resolve, 20));
            }
            if (!forbidden.includes(directive)) missed.push(`${directive}: ${way}`);
        }
    }
    return missed;
}"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved models, by name; their folders have one name."""
    folder = tmp_path_factory.mktemp("runs")
    paths = {name: folder / letter / "model" for name, letter in zip(SHOWN, "ab", strict=True)}
    for name, path in paths.items():
        trained(name).save_pretrained(path)
    return paths


@pytest.fixture(scope="module")
def folder(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of both models, in place of one of four, beside what is not the page's."""
    out = tmp_path_factory.mktemp("page")
    (out / "models").mkdir()
    for name in ("models/1.js", "models/3.js", "models/4.js", MINE):
        (out / name).write_text("older")
    words = ["export", *map(str, reversed(runs.values())), "--format", "web", "--out", str(out), "--overwrite"]
    assert main(words) == 0
    return out


def called(path: Path, function: str) -> list[Any]:
    """Return what a script calls a function with."""
    found = re.fullmatch(rf"globalThis\.{function}\((.*)\);\n", path.read_text(encoding="utf-8"))
    assert found
    arguments: list[Any] = json.loads(f"[{found[1]}]")
    return arguments


def listed(folder: Path) -> dict[str, Any]:
    content = (folder / "models.js").read_text(encoding="utf-8")
    models: dict[str, Any] = json.loads(content.removeprefix("globalThis.lexelModels = ").removesuffix(";\n"))
    return models


def test_the_runtime_is_made_from_its_sources() -> None:
    digest = hashlib.sha256()
    for name in ("build.js", "main.js", "package.json"):
        digest.update((ROOT / "web" / "runtime" / name).read_bytes())
    with (Path(lexel.__file__).parent / "export" / "page" / "runtime.js").open(encoding="utf-8") as file:
        assert f"sources: {digest.hexdigest()}" in file.read(4096), "run `make runtime`"


def test_the_folder_is_whole(folder: Path, runs: dict[str, Path]) -> None:
    assert listed(folder) == {
        "models": [
            {"name": "1", "title": str(runs[SHOWN[0]]), "codes": 64, "script": "models/1.js"},
            {"name": "2", "title": str(runs[SHOWN[1]]), "codes": 1 << 62, "script": "models/2.js"},
        ],
        "photos": [],
    }
    for number, run in enumerate(runs.values(), 1):
        name, content = called(folder / f"models/{number}.js", "lexelModel")
        assert name == str(number)
        facts = content["facts"]
        for way in ("encoder", "decoder"):
            assert hashlib.sha256(base64.b64decode(content[way], validate=True)).hexdigest() == facts[way]["sha256"]
        model = load_model(run)
        assert facts["model"] == lexel.tokens.fingerprint(model)
        assert facts["codebook_sizes"] == list(model.codebook_sizes)
        assert facts["downsampling"] == [4]
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {*PAGE, "models.js", "models/1.js", "models/2.js", MINE}
    assert (folder / MINE).read_text() == "older"
    assert set(re.findall(r'(?:src|href)="([\w./]+)"', (folder / "index.html").read_text(encoding="utf-8"))) <= names


@pytest.mark.parametrize("shown", SHOWN)
def test_a_browser_chooses_the_tokens_that_lexel_encode_writes(
    shown: str, folder: Path, runs: dict[str, Path], browser: Browser, tmp_path: Path
) -> None:
    pictures = photographs()[:1] + photographs()[2:3]
    (tmp_path / "photographs").mkdir()
    for number, picture in enumerate(pictures):
        pixels = (picture * 255).round().to(torch.uint8).movedim(0, -1).numpy()
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{number}.png")
    run, out = runs[shown], tmp_path / "tokens"
    assert main(["encode", str(run), str(tmp_path / "photographs"), "--out", str(out), "--device", "cpu"]) == 0

    policy = re.search(r"<meta http-equiv[^>]+>", (folder / "index.html").read_text(encoding="utf-8"))
    assert policy
    script = f"models/{SHOWN.index(shown) + 1}.js"
    blank = folder / "blank.html"
    blank.write_text(
        f'<!doctype html>{policy[0]}<script src="runtime.js"></script><script src="{script}"></script>',
        encoding="utf-8",
    )
    page = browser.new_page()
    page.add_init_script(RECEIVE)
    page.goto(blank.as_uri())
    model = load_model(run)
    tokens = lexel.tokens.open(out)
    for number, name in enumerate(tokens.names):
        content = (tmp_path / "photographs" / name).read_bytes()
        source = "data:image/png;base64," + base64.b64encode(content).decode()
        indices, dims, decoded, shape = page.evaluate(ENCODE, source)
        found = torch.tensor([int(index) for index in indices])
        assert torch.equal(found, tokens[number]["indices"].flatten())
        found = found.reshape(dims)
        assert len(found.unique()) > 3
        with torch.no_grad():
            expected = model.decode(found, tuple(shape[2:]))
        torch.testing.assert_close(torch.tensor(decoded).reshape(shape), expected, rtol=1e-4, atol=1e-5)
    page.close()
    blank.unlink()


@contextmanager
def served(folder: Path) -> Iterator[PageServer]:
    """Serve a folder, and keep what is asked for."""
    with PageServer(0) as server:
        server.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("disk", [True, False], ids=["from disk", "from lexel serve"])
def test_nothing_leaves_the_page(disk: bool, folder: Path, browser: Browser) -> None:
    page = browser.new_page()
    with served(folder) as server, PageServer(0) as elsewhere:
        page.goto((folder / "index.html").as_uri() if disk else server.address)
        assert page.evaluate("lexelRuntime.ready.then((ort) => typeof ort.InferenceSession.create)") == "function"
        assert page.evaluate(ESCAPES, f"{elsewhere.address}/secret") == []
    page.close()


def test_only_its_own_pages_read_what_is_served(folder: Path) -> None:
    with served(folder) as server:

        def get(path: str, **headers: str) -> Any:
            return urllib.request.urlopen(urllib.request.Request(server.address + path, headers=headers), timeout=30)

        for path, kind in (("/", "text/html"), ("/live.css", "text/css"), ("/models/1.js?x", "text/javascript")):
            with get(path) as answer:
                name = path.strip("/").partition("?")[0] or "index.html"
                assert answer.read() == (folder / name).read_bytes()
                assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
                assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        for path, headers in (
            ("/../web.py", {}),
            ("/models", {}),
            ("/models/3.js", {}),
            ("/", {"Host": "evil.example"}),
            ("/", {"Host": "127.0.0.1"}),
        ):
            with pytest.raises(urllib.error.HTTPError, match=r"404|421"):
                get(path, **headers)


def test_a_browser_leaves_out_the_port_of_the_web(folder: Path) -> None:
    with served(folder) as server:
        held, server.server_port = server.server_port, 80
        for host, found in (("127.0.0.1", "200"), ("LOCALHOST:80", "200"), ("localhost:81", "421"), ("evil", "421")):
            with socket.create_connection(("127.0.0.1", held), timeout=30) as client:
                client.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert client.makefile("rb").readline().split()[1].decode() == found, host


def test_a_client_that_goes_away_is_no_mistake(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with served(folder) as server:
        for _ in range(5):
            client = socket.create_connection(("127.0.0.1", server.server_port), timeout=30)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(f"GET /runtime.js HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode())
            client.recv(1)
            client.close()
        threads = [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
        for thread in threads:
            thread.join(timeout=30)
    assert capfd.readouterr().err == ""


def test_the_command_serves_until_it_is_told_to_end(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = str(runs[SHOWN[1]])
    words = [sys.executable, "-m", "lexel", "serve", run, "--port", "0", "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        try:
            address = next(found[0] for line in process.stdout if (found := re.search(r"http://[\d.]+:\d+", line)))
            with urllib.request.urlopen(f"{address}/models.js", timeout=30) as answer:
                assert b'"title": "model", "codes": 4611' in answer.read()
            port = address.rpartition(":")[2]
            assert f"port {port} cannot be had, another program uses it: give another, or --port 0" in refused(
                ["serve", run, "--port", port, "--no-browser"], capsys
            )
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()  # if it has not ended


def test_what_the_page_cannot_show_is_refused_and_nothing_is_written(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, vectors, wide, out = runs[SHOWN[0]], tmp_path / "vectors", tmp_path / "wide", tmp_path / "out"
    VectorAutoencoder(lexel.VectorQuantizer(16, 4)).save_pretrained(vectors)
    VQVAE(lexel.VectorQuantizer(16, 4), 5, hidden_channels=4).save_pretrained(wide)
    web = ("--format", "web", "--out", out)
    for words, said in (
        (["export", run, vectors, *web], "vectors: the page shows images, and this is a model of vectors"),
        (["export", wide, *web], "wide: the page shows images of 1, 3 or 4 channels, and its have 5"),
        (["export", run, tmp_path / "missing", *web], "missing"),
        (["export", run, runs[SHOWN[1]], "--out", out], "onnx is written of one model, got 2 runs"),
        (["export", run, runs[SHOWN[1]], "--format", "web"], "a page of 2 runs needs the folder to write into"),
        (["export", run, "--format", "web", "--out", vectors], "exists; give --overwrite"),
        (["serve", vectors, "--port", 0, "--no-browser"], "the page shows images"),
        (["serve", run, "--port", 1 << 16, "--no-browser"], "port must be"),
    ):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert said in refused(words, capsys)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_run_that_is_named_twice_is_shown_once(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs[SHOWN[0]]
    monkeypatch.chdir(run)
    assert main(["export", str(run), ".", "--format", "web", "--out", str(tmp_path / "out")]) == 0
    assert [model["title"] for model in listed(tmp_path / "out")["models"]] == [run.name]


def test_graphs_that_compute_something_else_are_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = VQVAE.latents

    def latents(model: VQVAE, images: Tensor) -> Tensor:
        found = own(model, images)
        return found + 10 if torch.compiler.is_compiling() else found

    monkeypatch.setattr(VQVAE, "latents", latents)
    model = VQVAE(lexel.FiniteScalarQuantizer([4] * 4), **SMALL).eval()
    with pytest.raises(ValueError, match=r"compute something else than the model: [\d,]+ of [\d,]+ indices"):
        export_page({"forgetful": model}, tmp_path / "out")
    assert not any(tmp_path.iterdir())
