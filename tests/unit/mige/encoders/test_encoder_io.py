import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from mige import EncoderConfig, InvalidInputError, load_encoder, make_encoder, save_encoder
from mige.encoders.io import CONFIG_FILE, WEIGHTS_FILE
from mige.normalization import make_normalizer


def config(**changes):
    options = {
        "kind": "mlp",
        "input_shape": (1, 4, 4),
        "out_dim": 3,
        "mean": (0.1,),
        "std": (0.5,),
        "options": {"hidden_dims": [8]},
    }
    return EncoderConfig(**{**options, **changes})


def encoder():
    return make_encoder("mlp", input_shape=(1, 4, 4), out_dim=3, hidden_dims=(8,))


@pytest.fixture
def saved(tmp_path):
    save_encoder(encoder(), config(), tmp_path / "encoder")
    return tmp_path / "encoder"


def test_only_the_two_files_are_left(saved):
    assert sorted(path.name for path in saved.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


def test_the_folder_and_the_weights_file_open_the_same_encoder(saved):
    images = torch.rand(3, 1, 4, 4)
    one, other = load_encoder(saved), load_encoder(str(saved / WEIGHTS_FILE))
    assert torch.equal(one.embed(images), other.embed(images))
    assert not one.training
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_embeddings_of_bytes_and_of_floats_agree(saved):
    images = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    loaded = load_encoder(saved)
    torch.testing.assert_close(loaded.embed(images), loaded.embed(images / 255.0))


def test_embeddings_do_not_depend_on_the_rest_of_the_batch_or_on_chunks(saved):
    images = torch.rand(600, 1, 4, 4)
    loaded = load_encoder(saved)
    whole = loaded.embed(images)
    torch.testing.assert_close(whole[:1], loaded.embed(images[:1]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole[250:300], loaded.embed(images[250:300]), rtol=1e-6, atol=1e-6)


def test_no_images_give_no_rows(saved):
    assert load_encoder(saved).embed(torch.rand(0, 1, 4, 4)).shape == (0, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 4, 4), r"shape \(2, 3, 4, 4\): this encoder takes \(n, 1, 4, 4\)"),
        (torch.rand(1, 4, 4), r"this encoder takes \(n, 1, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), "int64: give uint8 in 0..255 or floats"),
        (torch.full((2, 1, 4, 4), 255.0), "divide 0..255 values by 255"),
        (torch.full((2, 1, 4, 4), -0.1), "outside"),
        (torch.full((2, 1, 4, 4), torch.nan), "NaN"),
    ],
)
def test_images_that_do_not_fit_are_refused(saved, images, message):
    with pytest.raises(InvalidInputError, match=message):
        load_encoder(saved).embed(images)


@pytest.mark.parametrize("name", ["none", "sphere", "batch_norm"])
def test_an_embedding_passes_the_normalizer_of_the_training(name, tmp_path):
    module, normalizer = encoder(), make_normalizer(name, 3)
    normalizer(5.0 + 2.0 * torch.randn(50, 3))  # moves running statistics
    save_encoder(module, config(normalize=name), tmp_path, normalizer=normalizer)
    images = torch.rand(4, 1, 4, 4)
    with torch.no_grad():
        expected = normalizer.eval()(module((images - 0.1) / 0.5))
    torch.testing.assert_close(load_encoder(tmp_path).embed(images), expected)


def test_running_statistics_must_not_be_forgotten(tmp_path):
    with pytest.raises(InvalidInputError, match=r"lacks the tensors \['normalizer.mean'"):
        save_encoder(encoder(), config(normalize="batch_norm"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_the_configuration_are_not_saved(tmp_path):
    with pytest.raises(InvalidInputError, match="where the configuration says"):
        save_encoder(encoder(), config(out_dim=4), tmp_path)


def test_diverged_weights_are_not_saved(tmp_path):
    module = encoder()
    next(module.parameters()).data[0, 0] = torch.nan
    with pytest.raises(InvalidInputError, match="holds NaN or infinity"):
        save_encoder(module, config(), tmp_path)


def rewrite(folder, change):
    state = load_file(folder / WEIGHTS_FILE)
    change(state)
    save_file(state, folder / WEIGHTS_FILE)


KEY = "encoder.layers.1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(KEY), f"lacks the tensors .'{KEY}'"),
        (lambda state: state.update(extra=torch.ones(1)), "unexpected .'extra'"),
        (lambda state: state.update({KEY: torch.ones(2, 2)}), r"\(2, 2\) where"),
        (lambda state: state.update({KEY: state[KEY].double()}), "float64"),
        (lambda state: state[KEY].fill_(torch.inf), "NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(InvalidInputError, match=message):
        load_encoder(saved)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-5])


def announce_a_huge_header(file):
    file.write_bytes((2**40).to_bytes(8, "little") + file.read_bytes()[8:])


def pickle_instead(file):
    file.write_bytes(pickle.dumps({"encoder": "anything"}))


@pytest.mark.parametrize(
    "damage",
    [truncate, announce_a_huge_header, pickle_instead, lambda file: file.write_bytes(b"")],
)
def test_damaged_weights_are_refused_with_the_remedy(saved, damage):
    damage(saved / WEIGHTS_FILE)
    with pytest.raises(InvalidInputError, match="fetch it again"):
        load_encoder(saved)


def test_a_header_above_one_mebibyte_is_refused_even_if_it_is_whole(saved):
    file = saved / WEIGHTS_FILE
    save_file(load_file(file), file, metadata={"note": "x" * 2**20})
    with pytest.raises(InvalidInputError, match="more than 1 MiB"):
        load_encoder(saved)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(saved, file):
    (saved / file).unlink()
    with pytest.raises(InvalidInputError, match=f"{file} does not exist"):
        load_encoder(saved)


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"{" * 2_000_000])
def test_a_damaged_configuration_is_refused(saved, content):
    (saved / CONFIG_FILE).write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        load_encoder(saved)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_dims": [10**12, 10**12]},
        {"hidden_dims": [10**30]},
        {"hidden_dims": "8"},
        {"hidden_dims": None},
        {"depth": 3},
    ],
)
def test_a_configuration_cannot_exhaust_memory_or_slip_in_other_types(saved, options):
    file = saved / CONFIG_FILE
    content = {**json.loads(file.read_text()), "options": options}
    file.write_text(json.dumps(content))
    with pytest.raises(InvalidInputError):
        load_encoder(saved)
