"""IDs of vectors: from a table to a file, and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import lexel
from lexel.cli.program import main
from lexel.data.vectors import open_vectors
from lexel.models import VQVAE, VectorAutoencoder
from lexel.tokens import IDs, identify

DIM = 6


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((60, DIM)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path, rows: np.ndarray) -> Path:
    torch.manual_seed(0)
    stages = [lexel.VectorQuantizer(8, DIM) for _ in range(2)]
    for stage, scale in zip(stages, (1.0, 0.3), strict=True):
        stage.load_codes(scale * torch.from_numpy(rows[:8]))
    VectorAutoencoder(lexel.ResidualQuantizer(stages), beam_size=4).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def table(path: Path, rows: np.ndarray, items: list[object]) -> Path:
    pq.write_table(pa.table({"item": items, "embedding": [*rows], "label": [len(str(item)) for item in items]}), path)
    return path


def test_a_file_says_the_codes_and_the_distance_of_each_item(tmp_path: Path, model: Path, rows: np.ndarray) -> None:
    data = table(tmp_path / "data.parquet", rows, [f"B{number}" for number in range(60)])
    assert main(["encode", str(model), str(data), "--out", str(tmp_path / "ids.parquet")]) == 0
    ids, loaded = IDs.open(tmp_path / "ids.parquet"), VectorAutoencoder.from_pretrained(model)
    codes = loaded.encode(torch.from_numpy(rows))
    assert np.array_equal(ids.codes, codes.numpy())
    errors = (loaded.decode(codes) - torch.from_numpy(rows)).square().sum(1)
    assert np.allclose(ids.distances, errors.detach().numpy(), rtol=1e-5)
    assert list(ids.items) == [f"B{number}" for number in range(60)]
    assert ids.labels is not None
    assert ids.labels.tolist() == [2] * 10 + [3] * 50
    assert main(["decode", str(model), str(tmp_path / "ids.parquet"), "--out", str(tmp_path / "back.parquet")]) == 0
    back = open_vectors(tmp_path / "back.parquet")
    assert back.items == list(ids.items)
    assert torch.equal(back[:], loaded.decode(codes).detach())


@pytest.mark.parametrize("unique", ["suffix", "nearest-free"])
def test_items_that_are_added_leave_those_before_as_they_are(
    tmp_path: Path, model: Path, rows: np.ndarray, unique: str
) -> None:
    old = table(tmp_path / "old.parquet", rows[:40], list(range(40)))
    new = table(tmp_path / "new.parquet", rows[40:], list(range(100, 120)))
    out = tmp_path / "ids.parquet"
    assert main(["encode", str(model), str(old), "--out", str(out), "--unique", unique]) == 0
    before = IDs.open(out)
    assert len(np.unique(before.codes, axis=0)) == 40
    assert main(["encode", str(model), str(new), "--out", str(out), "--append", str(out)]) == 0
    after = IDs.open(out)
    assert after.version == 2
    assert np.array_equal(after.codes[:40], before.codes)
    assert list(after.items)[:40] == list(range(40))
    assert len(np.unique(after.codes, axis=0)) == len(after)
    content = out.read_bytes()
    assert main(["encode", str(model), str(new), "--out", str(out), "--append", str(out)]) == 2
    assert out.read_bytes() == content


def test_the_distance_of_an_item_that_moved_is_that_of_its_new_codes(
    tmp_path: Path, model: Path, rows: np.ndarray
) -> None:
    np.save(tmp_path / "data.npy", rows)
    loaded = VectorAutoencoder.from_pretrained(model)
    ids, figures = identify(loaded, tmp_path / "data.npy", tmp_path / "ids.parquet", unique="nearest-free")
    assert figures is not None
    assert figures.moved > 0
    errors = (loaded.decode(torch.from_numpy(ids.codes.astype(np.int64))) - torch.from_numpy(rows)).square().sum(1)
    assert np.allclose(ids.distances, errors.detach().numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--unique", "suffix", "--out", "folder"], "--unique is for IDs"),
        (["--append", "missing.parquet", "--out", "ids.parquet"], "missing.parquet"),
        (["--out", "ids.parquet", "--column", "a"], "no table, and has no column 'a'"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    tmp_path: Path,
    model: Path,
    rows: np.ndarray,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", rows)
    there = sorted(tmp_path.rglob("*"))
    assert main(["encode", str(model), "data.npy", *words]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == there


def test_an_unknown_way_to_be_unique_is_refused_before_anything_is_read(tmp_path: Path, model: Path) -> None:
    loaded = VectorAutoencoder.from_pretrained(model)
    with pytest.raises(ValueError, match="unique must be one of suffix, nearest-free, or None, got 'both'"):
        identify(loaded, tmp_path / "missing.npy", tmp_path / "ids.parquet", unique="both")


def test_images_have_no_ids(tmp_path: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    VQVAE(lexel.VectorQuantizer(8, 4), hidden_channels=4, residual_channels=2).save_pretrained(tmp_path / "images")
    np.save(tmp_path / "data.npy", rows)
    assert (
        main(["encode", str(tmp_path / "images"), str(tmp_path / "data.npy"), "--out", str(tmp_path / "i.parquet")])
        == 2
    )
    assert "this model takes images" in capsys.readouterr().err
    assert not (tmp_path / "i.parquet").exists()


def test_vectors_become_a_folder_of_tokens_too(tmp_path: Path, model: Path, rows: np.ndarray) -> None:
    data = table(tmp_path / "data.parquet", rows, [f"B{number}" for number in range(60)])
    assert main(["encode", str(model), str(data), "--out", str(tmp_path / "tokens"), "--shard-size", "25"]) == 0
    assert main(["encode", str(model), str(data), "--out", str(tmp_path / "ids.parquet")]) == 0
    tokens, ids = lexel.tokens.open(tmp_path / "tokens"), IDs.open(tmp_path / "ids.parquet")
    assert np.array_equal(IDs.from_tokens(tokens).codes, ids.codes)
    assert tokens.names == list(ids.items)
    for name in ("tokens", "ids.parquet"):
        assert main(["stats", str(tmp_path / name)]) == 0
        assert main(["decode", str(model), str(tmp_path / name), "--out", str(tmp_path / f"{name}.npy")]) == 0
    assert (tmp_path / "tokens.npy").read_bytes() == (tmp_path / "ids.parquet.npy").read_bytes()


def test_the_figures_are_those_of_the_ids_in_the_file(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = table(tmp_path / "data.parquet", rows, [f"B{number}" for number in range(60)]), tmp_path / "ids.parquet"
    assert main(["encode", str(model), str(data), "--out", str(out), "--unique", "nearest-free"]) == 0
    found = []
    for words in ([], ["--ids", str(out)]):
        capsys.readouterr()
        assert main(["evaluate", str(model), str(data), "--json", *words]) == 0
        found.append(json.loads(capsys.readouterr().out)["ids"])
    assert found[0]["shared"] > found[1]["shared"] == 0
    assert found[1]["levels"][-1]["distortion"] == pytest.approx(IDs.open(out).distances.mean(), rel=1e-5)
    assert found[1]["levels"][-1]["prefixes"] == 60
    other = table(tmp_path / "other.parquet", rows, [f"C{number}" for number in range(60)])
    assert main(["evaluate", str(model), str(other), "--ids", str(out)]) == 2
    assert "ids.parquet has no ID of 60 of the 60 items in" in capsys.readouterr().err


def write(path: Path, rows: np.ndarray, **columns: object) -> Path:
    pq.write_table(pa.table({"embedding": [*rows], **columns}), path)
    return path


def test_new_classes_come_after_those_before(tmp_path: Path, model: Path, rows: np.ndarray) -> None:
    old = write(tmp_path / "old.parquet", rows[:4], item=[*"abcd"], label=["jazz", "rock", "jazz", "rock"])
    new = write(tmp_path / "new.parquet", rows[4:7], item=[*"efg"], label=["blues", "rock", "blues"])
    out = tmp_path / "ids.parquet"
    assert main(["encode", str(model), str(old), "--out", str(out)]) == 0
    assert main(["encode", str(model), str(new), "--out", str(out), "--append", str(out)]) == 0
    ids = IDs.open(out)
    assert ids.facts.label_names == ("jazz", "rock", "blues")
    assert ids.labels is not None
    assert ids.labels.tolist() == [0, 1, 0, 1, 2, 1, 2]


def test_a_column_that_holds_no_classes_can_be_left_out(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data.parquet", rows, item=list(range(60)), label=[number / 2 for number in range(60)])
    encode = ["encode", str(model), str(data), "--out", str(tmp_path / "ids.parquet")]
    assert main(encode) == 2
    assert "--labels none takes none" in capsys.readouterr().err
    assert main([*encode, "--labels", "none"]) == 0
    assert IDs.open(tmp_path / "ids.parquet").labels is None
    capsys.readouterr()
    for arguments in (
        ["evaluate", str(model), str(data)],
        ["report", str(model), "--data", str(data), "--out", str(tmp_path / "page.html")],
    ):
        assert main(arguments) == 0, arguments
        assert "the column 'label' holds double" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--ray", "--format=npz", "--shard-size=10"])
def test_what_is_for_a_folder_is_refused_for_a_file(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    data = table(tmp_path / "data.parquet", rows, list(range(60)))
    assert main(["encode", str(model), str(data), "--out", str(tmp_path / "ids.parquet"), option]) == 2
    assert f"{option.partition('=')[0]} is for a folder" in capsys.readouterr().err
    assert not (tmp_path / "ids.parquet").exists()


def test_rows_that_no_column_names_are_numbered_aloud(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data.parquet", rows, sku=[f"B{number}" for number in range(60)])
    encode = ["encode", str(model), str(data), "--overwrite", "--out", str(tmp_path / "ids.parquet")]
    assert main(encode) == 0
    assert "--id-column" in capsys.readouterr().err
    assert list(IDs.open(tmp_path / "ids.parquet").items) == list(range(60))
    assert main([*encode, "--id-column", "sku"]) == 0
    assert "--id-column" not in capsys.readouterr().err
    assert list(IDs.open(tmp_path / "ids.parquet").items) == [f"B{number}" for number in range(60)]


@pytest.mark.parametrize("out", ["tokens", "tokens.safetensors"])
def test_items_may_have_names_that_no_file_can_have(tmp_path: Path, model: Path, rows: np.ndarray, out: str) -> None:
    items = ["", "../../etc", "https://example.org//a", ".", *(str(number) for number in range(56))]
    data = write(tmp_path / "data.parquet", rows, item=items)
    assert main(["encode", str(model), str(data), "--out", str(tmp_path / out)]) == 0
    assert list(lexel.tokens.open(tmp_path / out).names) == items
    assert main(["decode", str(model), str(tmp_path / out), "--out", str(tmp_path / "back.parquet")]) == 0
    assert open_vectors(tmp_path / "back.parquet").items == items


def test_a_zero_vector_has_no_id_where_only_directions_count(
    tmp_path: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = table(tmp_path / "data.parquet", rows, list(range(60))), tmp_path / "run"
    fit = ["fit", "--num-embeddings", "4", "--iterations", "1", "--unit", "true"]
    assert main([*fit, "--out", str(run), str(data)]) == 0
    rows[[7, 9]] = 0
    zeros = table(tmp_path / "zeros.parquet", rows, list(range(60)))
    refused = f"{zeros}: there is no direction, all numbers are 0, in the rows 7, 9"
    for arguments in (
        ["encode", str(run), str(zeros), "--out", str(tmp_path / "ids.parquet")],
        ["encode", str(run), str(zeros), "--out", str(tmp_path / "tokens")],
        ["evaluate", str(run), str(zeros)],
        ["report", str(run), "--data", str(zeros)],
        [*fit, "--out", str(tmp_path / "other"), str(zeros)],
    ):
        capsys.readouterr()
        assert main(arguments) == 2, arguments
        assert refused in capsys.readouterr().err.replace("\n", "")
    assert not (tmp_path / "ids.parquet").exists()
    assert not (run / "report.html").exists()


def test_numbers_whose_squares_do_not_fit_are_refused_by_row(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    rows[5, 1] = 1e20
    data = table(tmp_path / "data.parquet", rows, list(range(60)))
    assert main(["encode", str(model), str(data), "--out", str(tmp_path / "ids.parquet")]) == 2
    assert "not all numbers are within ±1e+16 and finite in the row 5" in capsys.readouterr().err


def test_a_prior_of_ids_has_no_page(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    data, prior = table(tmp_path / "data.parquet", rows, list(range(60))), tmp_path / "prior"
    assert main(["encode", str(model), str(data), "--labels", "none", "--out", str(tmp_path / "ids.parquet")]) == 0
    learn = ["train-prior", str(model), str(tmp_path / "ids.parquet"), "--out", str(prior), "--steps", "1"]
    assert main(learn) == 0
    assert main(["report", str(prior)]) == 2
    assert f"{prior} holds a prior of vectors" in capsys.readouterr().err.replace("\n", "")
    assert not (prior / "report.html").exists()


@pytest.mark.parametrize("there", [True, False])
def test_what_another_process_wrote_meanwhile_is_not_lost(
    tmp_path: Path, model: Path, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    data = [table(tmp_path / f"{n}.parquet", rows[n : n + 9], list(range(n, n + 9))) for n in (0, 9, 18)]
    loaded, out = VectorAutoencoder.from_pretrained(model), tmp_path / "ids.parquet"
    if there:
        identify(loaded, data[0], out)
    append = out if there else None
    encode = VectorAutoencoder.indices_of

    def interrupted(self: VectorAutoencoder, latents: torch.Tensor) -> torch.Tensor:
        monkeypatch.setattr(VectorAutoencoder, "indices_of", encode)
        identify(loaded, data[1], out, append=append)
        return encode(self, latents)

    monkeypatch.setattr(VectorAutoencoder, "indices_of", interrupted)
    with pytest.raises(FileExistsError, match=r"ids\.parquet was written by another process meanwhile"):
        identify(loaded, data[2], out, append=append)
    assert list(IDs.open(out).items)[-9:] == list(range(9, 18))
    if there:
        identify(loaded, data[2], out, append=out)
        assert list(IDs.open(out).items) == list(range(27))


def test_the_ids_of_a_file_are_found_by_their_items(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """In whatever order the items come, and if the file has more of them."""
    data, ids = table(tmp_path / "data.parquet", rows, [f"B{row}" for row in range(60)]), tmp_path / "ids.parquet"
    assert main(["encode", str(model), str(data), "--out", str(ids), "--unique", "nearest-free"]) == 0
    order = np.random.default_rng(1).permutation(60)[:50]
    some = table(tmp_path / "some.parquet", rows[order], [f"B{row}" for row in order])
    capsys.readouterr()
    assert main(["evaluate", str(model), str(some), "--ids", str(ids), "--json"]) == 0
    found = capsys.readouterr()
    own = IDs.open(ids).take(order)
    own.write(tmp_path / "own.parquet")
    assert main(["evaluate", str(model), str(some), "--ids", str(tmp_path / "own.parquet"), "--json"]) == 0
    assert found.out == capsys.readouterr().out
    errors = VectorAutoencoder.from_pretrained(model).decode(torch.from_numpy(own.codes.astype(np.int64)))
    errors = (errors - torch.from_numpy(rows[order])).square().sum(1).mean()
    assert json.loads(found.out)["ids"]["levels"][-1]["distortion"] == pytest.approx(errors.item(), rel=1e-5)
    assert "the IDs of 10 items more than" in found.err
    further = table(tmp_path / "more.parquet", rows[:8], [f"B{row}" for row in range(55, 63)])
    assert main(["evaluate", str(model), str(further), "--ids", str(ids)]) == 2
    assert "has no ID of 3 of the 8 items in" in (printed := capsys.readouterr().err)
    assert printed.endswith("more.parquet: B60, B61, B62\n")


def test_rows_without_names_have_the_ids_of_their_numbers_alone(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    data, ids = tmp_path / "data.npy", tmp_path / "ids.parquet"
    np.save(data, rows)
    assert main(["encode", str(model), str(data), "--out", str(ids)]) == 0
    assert main(["evaluate", str(model), str(data), "--ids", str(ids)]) == 0
    np.save(data, rows[10:])  # whose numbers are not those of before
    assert main(["evaluate", str(model), str(data), "--ids", str(ids)]) == 2
    assert "data.npy names no items, so that" in capsys.readouterr().err


def test_each_vector_is_encoded_once(
    tmp_path: Path, model: Path, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(tmp_path / "data.parquet", rows, [f"B{row}" for row in range(60)])
    encoded, indices_of = [], VectorAutoencoder.indices_of

    def counted(self: VectorAutoencoder, latents: torch.Tensor) -> torch.Tensor:
        encoded.append(len(latents))
        return indices_of(self, latents)

    monkeypatch.setattr(VectorAutoencoder, "indices_of", counted)
    assert main(["evaluate", str(model), str(data), "--json"]) == 0
    assert sum(encoded) == 60
    found = capsys.readouterr().out
    assert main(["encode", str(model), str(data), "--out", str(tmp_path / "ids.parquet")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(model), str(data), "--ids", str(tmp_path / "ids.parquet"), "--json"]) == 0
    assert found == capsys.readouterr().out


def test_a_single_item_has_no_neighbours(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(tmp_path / "data.parquet", rows[:1], ["lute"])
    assert main(["evaluate", str(model), str(data)]) == 0
    printed = capsys.readouterr().out
    assert "different prefixes" in printed
    assert "nan" not in printed
    assert "recall" not in printed


@pytest.mark.parametrize("items", [[f"B{row}" for row in range(60)], list(range(100, 160))])
def test_items_come_back_with_their_names_where_a_file_has_a_place_for_them(
    tmp_path: Path, model: Path, rows: np.ndarray, items: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    data, ids = table(tmp_path / "data.parquet", rows, items), tmp_path / "ids.parquet"
    assert main(["encode", str(model), str(data), "--out", str(ids)]) == 0
    capsys.readouterr()
    for name in ("back.npz", "back.parquet", "back.npy"):
        assert main(["decode", str(model), str(ids), "--out", str(tmp_path / name)]) == 0
    assert capsys.readouterr().err.count("does not name its 60 vectors, such as") == 1
    one, other, third = (open_vectors(tmp_path / f"back{ending}") for ending in (".npz", ".parquet", ".npy"))
    assert one.items == other.items == items
    assert not third.named
    assert torch.equal(one[:], other[:])
    assert torch.equal(one[:], third[:])


def test_a_file_of_an_ending_that_nobody_writes_is_refused(
    tmp_path: Path, model: Path, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    data, ids = table(tmp_path / "data.parquet", rows, list(range(60))), tmp_path / "ids.parquet"
    assert main(["encode", str(model), str(data), "--out", str(ids)]) == 0
    before = sorted(tmp_path.iterdir())
    for command, endings in (
        (["encode", str(model), str(data)], ".parquet or .safetensors"),
        (["decode", str(model), str(ids)], ".npy or .npz or .parquet"),
    ):
        assert main([*command, "--out", str(tmp_path / "out.csv")]) == 2
        assert f"only one that ends in {endings}; a folder would be {tmp_path}/out.csv/" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert main(["encode", str(model), str(data), "--out", f"{tmp_path}/out.csv/"]) == 0
    words = ["encode", str(model), str(data), "--out", f"{tmp_path}/out.csv", "--overwrite"]
    assert main(words) == 0  # that it is a folder, everybody sees now
