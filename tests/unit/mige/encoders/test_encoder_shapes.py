import pytest
import torch
from torch import nn

from mige import InvalidInputError, make_encoder


def layers(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def test_mlp_has_the_widths_it_was_given():
    encoder = make_encoder("mlp", input_shape=(1, 8, 8), out_dim=16, hidden_dims=(32, 24))
    widths = [(layer.in_features, layer.out_features) for layer in layers(encoder, nn.Linear)]
    assert widths == [(64, 32), (32, 24), (24, 16)]


def test_mlp_without_hidden_layers_is_linear():
    encoder = make_encoder("mlp", input_shape=(1, 8, 8), out_dim=4, hidden_dims=())
    assert not layers(encoder, nn.ReLU)


@pytest.mark.parametrize(("size", "flat"), [(28, 256 * 3 * 3), (32, 256 * 4 * 4)])
def test_dim_conv_is_the_encoder_of_deep_infomax(size, flat):
    encoder = make_encoder("dim_conv", input_shape=(3, size, size), out_dim=64)
    convolutions = layers(encoder, nn.Conv2d)
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256]
    assert {(layer.kernel_size, layer.stride, layer.padding) for layer in convolutions} == {
        ((4, 4), (2, 2), (1, 1))
    }
    hidden, output = layers(encoder, nn.Linear)
    assert (hidden.in_features, hidden.out_features, output.out_features) == (flat, 1024, 64)
    assert len(layers(encoder, nn.BatchNorm2d)) == 3
    assert encoder(torch.randn(2, 3, size, size)).shape == (2, 64)


def test_dim_conv_refuses_images_that_its_strides_would_use_up():
    with pytest.raises(InvalidInputError, match="at least 8 pixels"):
        make_encoder("dim_conv", input_shape=(1, 7, 7), out_dim=4)


def test_resnet_keeps_small_images_large():
    encoder = make_encoder("resnet18", input_shape=(1, 32, 32), out_dim=10)
    assert encoder.conv1.stride == (1, 1)
    assert not layers(encoder, nn.MaxPool2d)
    assert encoder.fc.out_features == 10


def test_a_mistyped_width_is_named():
    with pytest.raises(InvalidInputError, match=r"hidden_dims\[1\]=0"):
        make_encoder("mlp", input_shape=(1, 8, 8), out_dim=4, hidden_dims=(8, 0))
