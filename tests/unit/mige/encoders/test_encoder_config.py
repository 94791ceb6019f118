import json

import pytest

from mige import EncoderConfig, InvalidInputError


def config(**changes):
    options = {
        "kind": "mlp",
        "input_shape": (1, 4, 4),
        "out_dim": 3,
        "mean": (0.1,),
        "std": (0.5,),
        "options": {"hidden_dims": [8, 8]},
        "normalize": "sphere",
    }
    return EncoderConfig(**{**options, **changes})


def test_survives_its_json():
    assert EncoderConfig.from_json(config().to_json()) == config()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "vit"}, "kind='vit' is unknown"),
        ({"normalize": "layer"}, "normalize='layer' is unknown"),
        ({"out_dim": 0}, "out_dim=0"),
        ({"input_shape": (4, 4)}, "give .C, H, W."),
        ({"mean": (0.1, 0.2)}, "mean=.* give 1 numbers"),
        ({"std": (0.0,)}, "std=0.0"),
        ({"mean": (float("nan"),)}, "mean=nan"),
        ({"options": {"out_dim": 3}}, "options hold .'out_dim'."),
        ({"format_version": 2}, "format_version=2"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version=2: this version of mige reads 1"),
        ({"format_version": None}, "format_version=None"),
        ({"depth": 3}, r"unknown keys \['depth'\]"),
        ({"options": [1]}, r"options=\[1\]"),
        ({"mean": 0.5}, "mean=0.5: give a JSON list"),
        ({"input_shape": "144"}, "input_shape='144'"),
        ({"input_shape": [1, 4, 4.0]}, r"input_shape\[2\]=4.0"),
        ({"out_dim": True}, "out_dim=True"),
    ],
)
def test_files_of_another_make_are_refused(changes, message):
    content = {**json.loads(config().to_json()), **changes}
    with pytest.raises(InvalidInputError, match=message):
        EncoderConfig.from_json(json.dumps(content))


def test_a_missing_key_is_named():
    content = json.loads(config().to_json())
    del content["mean"]
    with pytest.raises(InvalidInputError, match=r"lacks \['mean'\]"):
        EncoderConfig.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_what_is_not_a_json_object_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        EncoderConfig.from_json(text)
