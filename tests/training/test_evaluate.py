"""Figures over whole images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lexel.cli import main
from lexel.runs import load_model
from tests import processes
from tests.commands import train


class TestEvaluate:
    def test_figures_are_those_of_the_decoded_files(
        self, run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main(["encode", str(run), str(photographs), "--out", str(tmp_path / "codes.safetensors")])
        main(["decode", str(run), str(tmp_path / "codes.safetensors"), "--out", str(tmp_path / "images")])
        capsys.readouterr()
        assert main(["evaluate", str(run), str(photographs), "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)

        psnr, l1 = [], []
        for name in ("animals/cats/chelsea.jpg", "coffee.webp", "people/astronaut.png", "people/camera.bmp"):
            pair = photographs / name, (tmp_path / "images" / name).with_suffix(".png")
            original, decoded = (np.array(Image.open(path).convert("RGB")).astype(float) / 255 for path in pair)
            psnr.append(-10 * np.log10(((original - decoded) ** 2).mean()))
            l1.append(np.abs(original - decoded).mean())
        assert figures["images"] == 4
        assert figures["psnr"] == pytest.approx(np.mean(psnr), rel=1e-5)
        assert figures["l1"] == pytest.approx(np.mean(l1), rel=1e-5)

        grids = load_file(tmp_path / "codes.safetensors").values()
        counts = np.bincount(np.concatenate([grid.numpy().ravel() for grid in grids]), minlength=16)
        p = counts[counts > 0] / counts.sum()
        pixels = sum(width * height for width, height in ((97, 90), (113, 75), (75, 50), (66, 66)))
        assert figures["used"] == len(p)
        assert figures["perplexity"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
        assert figures["bits_per_pixel"] == pytest.approx(4 * counts.sum() / pixels)
        entropy = -(p * np.log2(p)).sum() * counts.sum() / pixels
        assert figures["entropy_bits_per_pixel"] == pytest.approx(entropy, rel=1e-4, abs=1e-6)

    def test_prints_a_table(self, run: Path, photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evaluate", str(run), str(photographs)]) == 0
        printed = capsys.readouterr().out
        for row in ("PSNR", "SSIM", "L1", "perplexity", "codes in use", "bits per pixel"):
            assert row in printed


class TestAudit:
    def test_tells_every_check_and_ends_with_0_only_when_all_is_well(
        self, run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sound = tmp_path / "sound"
        assert train(photographs, sound, "--quantizer.num-embeddings", "64") == 0
        ran = processes.run(["lexel", "audit", sound, photographs])
        assert "nearest codes " in ran.stdout
        assert "peak grows by" in ran.stdout
        assert ran.stderr == ""
        model = load_model(run)
        with torch.no_grad():
            model.quantizer.quantizer.quantizer.codebook.weight[1:] += 1e3
        model.save_pretrained(tmp_path / "collapsed")
        assert main(["audit", str(tmp_path / "collapsed"), str(photographs)]) == 1
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "WRONG" in line)
        assert line.startswith("usage ")
        assert "1 of 16 codes" in line
