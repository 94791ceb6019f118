"""The problems are those that the project's numbers are about: the spectral estimator on each.

n = 256, d = 8, 32 parameters, 3 seeds; centres are means over 15 other seeds, the bands wide enough
for three standard deviations of a mean of 3. The geometric mean of the ten was .202 when the suite was
first defined; a change of a definition (a strength, a sign, a missing rotation) moves its problem
out of its band.
"""

import pytest

from mige.calibration import NETWORKS, SUITE, calibrate, make_subject

BANDS = {
    "gauss": (0.060, 0.020),
    "mixed": (0.588, 0.040),
    "cube": (0.308, 0.035),
    "asinh": (0.116, 0.025),
    "rotated_half_cube": (0.082, 0.025),
    "student": (0.084, 0.025),
    "bimodal": (0.057, 0.018),
    "spiral": (0.680, 0.040),
    "square": (0.628, 0.035),
    "sin": (0.874, 0.025),
    "network": (0.155, 0.030),
    "clustered_network": (0.520, 0.070),
}


@pytest.mark.statistical
@pytest.mark.slow
def test_the_spectral_estimator_errs_on_every_problem_as_it_always_did():
    card = calibrate(
        make_subject("spectral"), n=256, d=8, problems=(*SUITE, *NETWORKS), seeds=3, first_seed=100
    )
    found = {name: result.accuracy.relative_error for name, result in card.problems.items()}
    outside = {
        name: error for name, error in found.items() if abs(error - BANDS[name][0]) > BANDS[name][1]
    }
    assert outside == {}
    assert found.keys() == BANDS.keys()
    assert card.suite_error == pytest.approx(0.210, abs=0.017)
    assert card.problems["clustered_network"].accuracy.cosine == pytest.approx(0.857, abs=0.035)
