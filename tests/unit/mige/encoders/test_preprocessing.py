import torch

from mige import standardize_images


def test_bytes_and_floats_of_the_same_image_agree():
    image = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    options = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    standard = standardize_images(image, **options)
    torch.testing.assert_close(standardize_images(image / 255.0, **options), standard)
    torch.testing.assert_close(standard[:, 1], (image[:, 1] / 255.0 - 0.4) / 0.3)


def test_the_result_is_float32_and_the_input_unchanged():
    image = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    before = image.clone()
    assert standardize_images(image, mean=[0.1], std=[2.0]).dtype == torch.float32
    assert torch.equal(image, before)
