"""What every encoder promises."""

import pytest
import torch

from mige import EncoderConfig, InvalidInputError, load_encoder, make_encoder, save_encoder
from mige.encoders import ENCODERS

# Small enough for a fast test; an encoder that is not named takes its defaults.
OPTIONS = {"mlp": {"hidden_dims": [12]}, "dim_conv": {"channels": [4, 8], "hidden_dim": 16}}
SHAPES = [(1, 8, 8), (3, 9, 11)]


@pytest.fixture(params=list(ENCODERS))
def kind(request):
    if request.param == "resnet18":
        pytest.importorskip("torchvision")
    return request.param


def build(kind, shape=(3, 8, 8), out_dim=5):
    options = OPTIONS.get(kind, {})
    return make_encoder(kind, input_shape=shape, out_dim=out_dim, **options)


def config(kind, shape=(3, 8, 8), out_dim=5, **changes):
    channels = shape[0]
    return EncoderConfig(
        kind=kind,
        input_shape=shape,
        out_dim=out_dim,
        mean=(0.4,) * channels,
        std=(0.3,) * channels,
        options=OPTIONS.get(kind, {}),
        **changes,
    )


class TestEncoder:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_maps_images_to_embeddings(self, kind, shape):
        encoder = build(kind, shape)
        assert encoder(torch.randn(4, *shape)).shape == (4, 5)

    def test_every_parameter_feels_the_loss(self, kind):
        encoder = build(kind)
        encoder(torch.randn(6, 3, 8, 8)).square().sum().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name

    def test_in_eval_mode_a_row_depends_on_its_own_image_only(self, kind):
        encoder = build(kind).eval()
        images = torch.randn(6, 3, 8, 8)
        with torch.no_grad():
            alone = torch.cat([encoder(image[None]) for image in images])
            torch.testing.assert_close(encoder(images), alone, rtol=1e-5, atol=1e-5)

    def test_sizes_that_are_not_counts_are_refused(self, kind):
        with pytest.raises(InvalidInputError, match="out_dim=0"):
            build(kind, out_dim=0)

    def test_unknown_options_are_refused(self, kind):
        with pytest.raises(InvalidInputError, match="no option 'depth'"):
            make_encoder(kind, input_shape=(3, 8, 8), out_dim=5, depth=3)

    def test_survives_its_files(self, kind, tmp_path):
        encoder = build(kind)
        encoder(torch.randn(16, 3, 8, 8))  # moves running statistics
        save_encoder(encoder, config(kind), tmp_path)
        loaded = load_encoder(tmp_path)
        images = torch.rand(4, 3, 8, 8)
        with torch.no_grad():
            expected = encoder.eval()((images - 0.4) / 0.3)
        torch.testing.assert_close(loaded.embed(images), expected)
        assert loaded.config == config(kind)
