"""torchvision's ResNet-18 adapted to small images."""

from collections.abc import Sequence

from torch import nn

from mige.checks import check_count, check_counts


def resnet18(*, input_shape: Sequence[int], out_dim: int) -> nn.Module:
    """ResNet-18 with a 3×3 stride-1 stem and no max-pool, as is usual for 32-pixel images.

    torchvision is imported here, not with the package: it takes seconds.

    Args:
        input_shape: (C, H, W) of one image; any height and width.
        out_dim: width of the embedding.

    Raises:
        InvalidInputError: a width is not an integer of at least 1.

    Source:
        He et al., CVPR 2016 (arXiv 1512.03385); the stem of Chen et al., ICML 2020
        (arXiv 2002.05709).
    """
    from torchvision.models import resnet18 as torchvision_resnet18

    channels = check_counts("input_shape", input_shape)[0]
    model: nn.Module = torchvision_resnet18(num_classes=check_count("out_dim", out_dim))
    model.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model
