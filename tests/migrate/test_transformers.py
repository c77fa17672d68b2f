"""Quantizers of transformers, against the package: small ones with random weights."""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    ChameleonVQVAEConfig,
    DacConfig,
    Emu3VQVAEConfig,
    EncodecConfig,
    GlmImageVQVAEConfig,
    HiggsAudioV2TokenizerConfig,
    JanusVQVAEConfig,
    MimiConfig,
    MimiModel,
    Wav2Vec2Config,
    WavTokenizerConfig,
    Xcodec2Config,
    XcodecConfig,
)
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAEVectorQuantizer
from transformers.models.dac.modeling_dac import DacResidualVectorQuantizer
from transformers.models.emu3.modeling_emu3 import Emu3VQVAEVectorQuantizer
from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer
from transformers.models.glm_image.modeling_glm_image import GlmImageVQVAEVectorQuantizer
from transformers.models.janus.modeling_janus import JanusVQVAEVectorQuantizer
from transformers.models.mimi.modeling_mimi import MimiSplitResidualVectorQuantizer
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer
from transformers.models.wavtokenizer.modeling_wavtokenizer import WavTokenizerVectorQuantization
from transformers.models.xcodec.modeling_xcodec import XcodecResidualVectorQuantization
from transformers.models.xcodec2.modeling_xcodec2 import Xcodec2Quantizer

import lexel
from lexel import migrate
from tests.migrate.agreement import agree, gradients_agree

with pytest.MonkeyPatch.context() as patch:
    # Its file imports torchaudio, of which its quantizer uses nothing.
    patch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    from transformers.models.higgs_audio_v2_tokenizer.modeling_higgs_audio_v2_tokenizer import (
        HiggsAudioV2TokenizerResidualVectorQuantization,
    )


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def filled(module: nn.Module) -> nn.Module:
    """Put random numbers into the tables, which start at zero, and statistics that fit them."""
    for name, value in module.state_dict().items():
        if name.endswith(("embed", "embed_sum", "codevectors")):
            value.normal_()
        elif name.endswith(("cluster_size", "cluster_usage")):
            value.uniform_(0.5, 5)
    return module.eval()


def state_of(module: nn.Module, name: str = "quantizer") -> dict[str, Tensor]:
    """As the quantizer stands in its model."""
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


def codec(module: nn.Module, axis: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Encode and decode; the axis of codebooks goes last."""

    def forward(z: Tensor) -> tuple[Tensor, Tensor]:
        codes = module.encode(z)
        return module.decode(codes if axis == 0 else codes.transpose(0, 1)), codes.movedim(0, -1)

    return forward


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (EncodecResidualVectorQuantizer, EncodecConfig(codebook_size=32, codebook_dim=8, target_bandwidths=[3.0])),
        (XcodecResidualVectorQuantization, XcodecConfig(codebook_size=32, codebook_dim=8)),
        (
            HiggsAudioV2TokenizerResidualVectorQuantization,
            HiggsAudioV2TokenizerConfig(codebook_size=32, codebook_dim=4),
        ),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_residuals_of_encodec_tables(kind: type[nn.Module], config: Any) -> None:
    theirs = filled(kind(config))
    dim = config.hidden_size if hasattr(next(iter(theirs.children()))[0], "project_in") else config.codebook_dim
    agree(migrate.load(state_of(theirs)), codec(theirs, 0), torch.randn(2, dim, 30))


def test_wavtokenizer() -> None:
    theirs = filled(WavTokenizerVectorQuantization(WavTokenizerConfig(codebook_size=32, codebook_dim=8, hidden_size=8)))
    ours = migrate.load(state_of(theirs, "encoder_model.quantizer"))
    agree(ours, lambda z: (theirs.decode(theirs.encode(z)), theirs.encode(z)), torch.randn(2, 8, 30))


@pytest.mark.parametrize("hidden", [8, 12])
def test_mimi(hidden: int) -> None:
    config = MimiConfig(
        codebook_size=32, codebook_dim=8, vector_quantization_hidden_dimension=8, hidden_size=hidden, num_quantizers=4
    )
    theirs, z = filled(MimiSplitResidualVectorQuantizer(config)), torch.randn(2, hidden, 30)
    ours = migrate.load(state_of(theirs))
    agree(ours, codec(theirs, 1), z)
    few = ours(z).indices[..., :3]
    torch.testing.assert_close(ours.lookup(few), theirs.decode(few.movedim(-1, 1)))
    with pytest.raises(ValueError, match=r"not sure what stands at prefix='quantizer\.acoustic"):
        migrate.load({**state_of(theirs), "quantizer.acoustic_residual_vector_quantizer.gate": z}, prefix=ACOUSTIC)
    with pytest.warns(UserWarning, match="left aside"):
        half = migrate.load(state_of(theirs), prefix=ACOUSTIC)
    agree(half, codec(theirs.acoustic_residual_vector_quantizer, 1), z)


ACOUSTIC = "quantizer.acoustic_residual_vector_quantizer"


def test_moshi_names() -> None:
    config = MimiConfig(
        codebook_size=32, codebook_dim=8, vector_quantization_hidden_dimension=8, hidden_size=12, num_quantizers=4
    )
    theirs = filled(MimiSplitResidualVectorQuantizer(config))
    renamed = {}
    for key, value in state_of(theirs).items():
        for old, new in (
            ("semantic_residual_vector_quantizer", "rvq_first"),
            ("acoustic_residual_vector_quantizer", "rvq_rest"),
            ("layers.", "vq.layers."),
            ("codebook.", "_codebook."),
            ("initialized", "_initialized"),
            ("embed_sum", "embedding_sum"),
        ):
            key = key.replace(old, new)
        renamed[key] = value
    agree(migrate.load(renamed), codec(theirs, 1), torch.randn(2, 12, 30))


def test_a_whole_model() -> None:
    config = MimiConfig(
        hidden_size=8,
        num_filters=2,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=8,
        codebook_size=16,
        codebook_dim=4,
        vector_quantization_hidden_dimension=4,
        num_quantizers=3,
        upsample_groups=1,
    )
    model = filled(MimiModel(config))
    with pytest.warns(UserWarning, match=r"took Mimi's split residual quantizer at 'quantizer\.'; left aside decoder"):
        ours = migrate.load(model.state_dict())
    agree(ours, codec(model.quantizer, 1), torch.randn(2, 8, 30))


def test_dac() -> None:
    config = DacConfig(n_codebooks=3, codebook_size=32, codebook_dim=4, quantizer_dropout=0.0)
    theirs, z = DacResidualVectorQuantizer(config).eval(), torch.randn(2, config.hidden_size, 30)
    ours = migrate.load(state_of(theirs), format="dac", dropout=0.0)

    def forward(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized, indices, _, commitment, codebook = theirs(z)
        return quantized, indices.movedim(1, -1), (0.25 * commitment + codebook).mean()

    agree(ours, forward, z)
    theirs.train()
    gradients_agree(ours, forward, z)


LEVELS = [4, 4, 5, 4]


def test_xcodec2() -> None:
    theirs, z = (
        Xcodec2Quantizer(Xcodec2Config(quantization_dim=10, quantization_levels=LEVELS)),
        3 * torch.randn(2, 30, 10),
    )
    ours = migrate.load(state_of(theirs), format="xcodec2", levels=LEVELS, channel_dim=-1)
    agree(ours, theirs, z)
    gradients_agree(ours, theirs, z)
    plain = migrate.load(state_of(theirs), format="vqp-fsq", levels=LEVELS, symmetric=False, channel_dim=-1)
    assert (plain(z).indices != ours.eval()(z).indices.squeeze(-1)).any()  # what taking it for a plain one would give


@pytest.mark.parametrize(
    ("kind", "config", "metric"),
    [
        (ChameleonVQVAEVectorQuantizer, ChameleonVQVAEConfig(num_embeddings=32, embed_dim=8), "euclidean"),
        (JanusVQVAEVectorQuantizer, JanusVQVAEConfig(num_embeddings=32, embed_dim=8), "euclidean"),
        (GlmImageVQVAEVectorQuantizer, GlmImageVQVAEConfig(num_embeddings=32, embed_dim=8), "cosine"),
    ],
    ids=["Chameleon", "Janus", "GLM-Image"],
)
def test_vqgan_whose_weight_is_on_the_codebook_loss(kind: type[nn.Module], config: Any, metric: str) -> None:
    theirs, z = kind(config), torch.randn(2, 8, 5, 5)
    learning = lexel.Gradient(weight=theirs.beta)
    state = state_of(theirs, "model.vqmodel.quantize")
    ours = migrate.load(state, metric=metric, commitment_cost=1.0, learning=learning)

    def forward(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized, loss, indices = theirs(z)
        return quantized, indices.reshape(2, 5, 5), loss

    agree(ours, forward, z)
    gradients_agree(ours, forward, z)
    ours.train()(z).loss.backward()
    forward(z)[2].backward()
    torch.testing.assert_close(ours.codebook.weight.grad, theirs.embedding.weight.grad)


def test_emu3() -> None:
    theirs = Emu3VQVAEVectorQuantizer(Emu3VQVAEConfig(codebook_size=32, embed_dim=8)).eval()
    ours = migrate.load(state_of(theirs, "quantize"), metric="euclidean", commitment_cost=0.25, channel_dim=2)
    agree(ours, lambda z: (theirs.embedding(theirs(z)).movedim(-1, 2), theirs(z)), torch.randn(2, 3, 8, 4, 4))


@pytest.mark.parametrize("groups", [1, 2])
def test_wav2vec2(groups: int) -> None:
    config = Wav2Vec2Config(
        conv_dim=(10,) * 7, codevector_dim=6, num_codevector_groups=groups, num_codevectors_per_group=20
    )
    theirs, z = filled(Wav2Vec2GumbelVectorQuantizer(config)), torch.randn(2, 30, 10)
    ours = migrate.load(state_of(theirs), groups=groups, channel_dim=-1)

    def forward(z: Tensor) -> tuple[Tensor, Tensor]:
        return theirs(z)[0], theirs.weight_proj(z).unflatten(-1, (groups, 20)).argmax(-1)

    agree(ours, forward, z)
    if groups == 1:  # with more of them, the noise is drawn in another order

        def again(z: Tensor) -> tuple[Tensor, Tensor]:
            torch.manual_seed(1)
            return theirs.train()(z)

        def with_seed(*_: object) -> None:
            torch.manual_seed(1)

        ours.register_forward_pre_hook(with_seed)
        gradients_agree(ours, again, z)
    with pytest.raises(TypeError, match="groups="):
        migrate.load(state_of(theirs))
    with pytest.raises(ValueError, match="groups must divide"):
        migrate.load(state_of(theirs), groups=7)


def test_one_codec_is_not_taken_for_another() -> None:
    """Each state dict loads as one format alone, or asks."""
    config = MimiConfig(codebook_size=8, codebook_dim=4, vector_quantization_hidden_dimension=4, num_quantizers=2)
    modules = [
        EncodecResidualVectorQuantizer(EncodecConfig(codebook_size=8, codebook_dim=4, target_bandwidths=[3.0])),
        MimiSplitResidualVectorQuantizer(config),
        WavTokenizerVectorQuantization(WavTokenizerConfig(codebook_size=8, codebook_dim=4, hidden_size=4)),
        Wav2Vec2GumbelVectorQuantizer(Wav2Vec2Config(codevector_dim=8)),
        JanusVQVAEVectorQuantizer(JanusVQVAEConfig(num_embeddings=8, embed_dim=4)),
    ]
    for one, other in itertools.permutations(modules, 2):
        both = {**state_of(one), **{f"quantizer.{key}": F.pad(v, (0, 0)) for key, v in other.state_dict().items()}}
        with pytest.raises((ValueError, TypeError)):
            migrate.load(both)
