"""The calibration card: what it holds, in what order it is made, how it is drawn."""

import json
import math
import subprocess
import sys

import pytest
import torch

from mige import make_score_estimator
from mige.calibration import (
    NETWORKS,
    PROBLEMS,
    QUICK_PROBLEMS,
    STANDARD_PROBLEMS,
    SUITE,
    ScoreSubject,
    calibrate,
    make_subject,
)
from mige.calibration.plot import draw_card
from mige.errors import InvalidInputError


def small_card(**changes):
    arguments = {"n": 24, "d": 2, "problems": ("gauss", "linear_encoder", "network"), "seeds": 2}
    return calibrate(make_subject("spectral", {"explained": 0.9}), **{**arguments, **changes})


def test_a_card_says_what_was_measured_and_how():
    card = small_card(first_seed=7)
    document = json.loads(json.dumps(card.to_dict(), allow_nan=False))
    assert document["format_version"] == 1
    assert document["estimator"] == {"name": "spectral", "options": {"explained": 0.9}}
    assert (document["n"], document["d"], document["first_seed"]) == (24, 2, 7)
    assert (document["dtype"], document["device"]) == ("float32", "cpu")
    assert document["complete"] is True
    assert document["minimum_samples"] == 2
    assert document["versions"]["torch"] == torch.__version__
    assert document["cost"]["ms"] > 0
    assert list(document["problems"]) == ["gauss", "linear_encoder", "network"]
    gauss = document["problems"]["gauss"]
    assert gauss["seeds"] == 2
    assert len(gauss["curve"]["parameter"]) == len(gauss["curve"]["std"]) == 32
    assert gauss["curve"]["truth"] == PROBLEMS["gauss"].truth(
        PROBLEMS["gauss"].grid(2), 2
    ).tolist()  # fmt: skip
    assert document["problems"]["network"]["curve"] is None
    keys = {"relative_error", "relative_error_std", "bias", "spread", "slope", "cosine"}
    assert keys <= gauss.keys()


def test_the_same_seeds_give_the_same_numbers():
    first, again, other = (small_card(first_seed=seed).problems["gauss"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_suite_error_is_a_geometric_mean_of_all_ten_or_nothing():
    card = small_card(problems=SUITE, seeds=1)
    errors = [card.problems[name].accuracy.relative_error for name in SUITE]
    assert card.suite_error == pytest.approx(math.prod(errors) ** 0.1)
    assert small_card().suite_error is None


def test_all_problems_are_measured_once_before_any_is_measured_again():
    seen = []
    small_card(on_progress=lambda *news: seen.append(news))
    names = ["gauss", "linear_encoder", "network"]
    assert seen == [*[(i, 6, name) for i, name in enumerate(2 * names)], (6, 6, "network")]


@pytest.mark.parametrize(
    ("after", "seeds"), [(0, {}), (2, {"gauss": 1, "linear_encoder": 1}),
                         (4, {"gauss": 2, "linear_encoder": 1, "network": 1})]
)  # fmt: skip
def test_a_measurement_that_is_stopped_keeps_what_it_has(after, seeds):
    asked = []

    def should_stop():
        asked.append(None)
        return len(asked) > after

    card = small_card(should_stop=should_stop)
    assert not card.complete
    assert card.cost is None
    assert {name: result.seeds for name, result in card.problems.items()} == seeds
    assert json.dumps(card.to_dict(), allow_nan=False)


def test_what_the_question_raises_passes_through():
    def cancelled():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_card(should_stop=cancelled)


def test_x_may_be_wider_than_z():
    class Widths(ScoreSubject):
        def gradient(self, x, z, seed):
            seen.append((x.shape[-1], z.shape[-1]))
            return super().gradient(x, z, seed)

    seen = []
    subject = Widths(make_score_estimator("gaussian_residual"), "gaussian_residual")
    card = calibrate(subject, n=600, d=2, dim_x=5, problems=("gauss", "linear_encoder"), seeds=1)
    assert set(seen) == {(5, 2)}
    assert (card.d, card.dim_x, card.to_dict()["dim_x"]) == (2, 5, 5)
    assert card.minimum_samples == make_score_estimator().minimum_samples(7)
    # Independent columns change no truth: the estimates still follow it.
    assert card.problems["gauss"].accuracy.slope == pytest.approx(1.0, abs=0.1)
    assert card.problems["linear_encoder"].accuracy.cosine > 0.95


def test_a_bound_is_spared_the_problems_that_need_scores():
    card = calibrate(make_subject("infonce", {"steps": 2}), n=12, d=2, seeds=1,
                     problems=("gain", "network"))  # fmt: skip
    assert list(card.problems) == ["gain"]
    with pytest.raises(InvalidInputError, match="can be tried on none of them"):
        calibrate(make_subject("infonce"), n=12, d=2, problems=("network",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n": 0}, "n=0"),
        ({"d": 0}, "d=0"),
        ({"seeds": 0}, "seeds=0"),
        ({"problems": ("cubic",)}, "problem='cubic'"),
        ({"problems": ()}, "choose at least one"),
        ({"dim_x": 1}, "dim_x=1: give at least the width d=2"),
    ],
)
def test_bad_arguments_of_a_card_are_named(changes, said):
    with pytest.raises(InvalidInputError, match=said):
        small_card(**changes)


def test_the_lists_of_problems_name_problems():
    known = PROBLEMS.keys() | NETWORKS.keys()
    assert set(STANDARD_PROBLEMS) <= known
    assert set(QUICK_PROBLEMS) < set(STANDARD_PROBLEMS)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_card_can_be_drawn(tmp_path, seeds):
    card = small_card(problems=("gauss", "gain", "sin", "square", "tanh", "network"), seeds=seeds)
    figure = draw_card(card)
    assert len(figure.axes) == 6  # the bars and five curves
    texts = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert texts == list(card.problems)
    assert "n = 24" in figure.get_suptitle()
    figure.savefig(tmp_path / "card.png", dpi=40)
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")


def test_calibration_is_imported_without_matplotlib():
    code = "import sys, mige, mige.calibration; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
