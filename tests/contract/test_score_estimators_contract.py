"""What every score estimator promises, whatever its method."""

import pickle
import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mige.errors import InvalidInputError, NumericalError
from mige.scores import SCORE_ESTIMATORS, ScoreEstimator, make_score_estimator

pytestmark = pytest.mark.parametrize("name", list(SCORE_ESTIMATORS))


def normal(n, d, dtype=torch.float64):
    return torch.randn(n, d, dtype=torch.float64).to(dtype)


def relative_error(estimate, truth):
    return float((estimate.double() - truth.double()).norm() / truth.double().norm())


def bent_pairs():
    """Skewed margins and a dependence with a non-linear part."""
    x = normal(100, 3)
    return x, torch.exp(0.5 * (x.square() - 1.0) + 0.7 * normal(100, 3))


def integer_pairs():
    """Atoms, ties and duplicate rows."""
    x = torch.randint(0, 4, (100, 3)).double()
    return x, x + torch.randint(0, 3, (100, 3)).double()


class TestScoreEstimator:
    def test_is_a_score_estimator(self, name):
        assert isinstance(make_score_estimator(name), ScoreEstimator)

    # 20 seeds, d = 2, n = 512: relative error .18-.31 (spectral), .29-.53 (gaussian_residual, whose
    # strength is averages); cosine .88-.98, at fresh queries .82-.99.
    def test_recovers_the_score_of_a_normal(self, name):
        x = normal(512, 2)
        score = make_score_estimator(name).score(x)
        assert relative_error(score, -x) < 0.7
        assert torch.cosine_similarity(score.flatten(), -x.flatten(), dim=0) > 0.8

    def test_recovers_the_score_of_a_normal_at_fresh_queries(self, name):
        x, queries = normal(512, 2), normal(100, 2)
        score = make_score_estimator(name).score(x, queries)
        assert torch.cosine_similarity(score.flatten(), -queries.flatten(), dim=0) > 0.75

    def test_the_mean_of_score_times_sample_is_minus_the_identity(self, name):
        # Stein's identity for linear functions; 20 seeds at d = 2, n = 512: within .1 (spectral).
        x = normal(512, 2)
        product = make_score_estimator(name).score(x).T @ (x - x.mean(0)) / 512
        assert (product + torch.eye(2)).abs().max() < 0.2

    def test_the_result_is_detached_and_the_input_unchanged(self, name):
        x = normal(40, 3).requires_grad_()
        before = x.detach().clone()
        score = make_score_estimator(name).score(x, x + 1.0)
        assert not score.requires_grad
        assert torch.equal(x, before)

    @pytest.mark.parametrize(
        ("dtype", "result"),
        [
            (torch.float64, torch.float64),
            (torch.float32, torch.float32),
            (torch.bfloat16, torch.float32),
            (torch.float16, torch.float32),
        ],
    )
    def test_half_precision_is_computed_in_float32(self, name, dtype, result):
        x = normal(40, 3, dtype)
        estimator = make_score_estimator(name)
        assert estimator.score(x).dtype == result
        assert estimator.score(x, x[:2]).dtype == result

    def test_autocast_does_not_reach_inside(self, name):
        x = normal(60, 3, torch.float32)
        estimator = make_score_estimator(name)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = estimator.score(x)
        assert torch.equal(inside, estimator.score(x))

    def test_float32_agrees_with_float64(self, name):
        # An eigenvalue near the cut may flip in the spectral estimator: hence 2e-2, not 1e-3.
        x = normal(128, 8, torch.float32)
        estimator = make_score_estimator(name)
        assert relative_error(estimator.score(x), estimator.score(x.double())) < 2e-2

    def test_permuting_the_rows_permutes_the_score(self, name):
        x = normal(60, 4)
        order = torch.randperm(60)
        estimator = make_score_estimator(name)
        torch.testing.assert_close(
            estimator.score(x[order]), estimator.score(x)[order], rtol=0, atol=1e-8
        )

    def test_degenerate_eigenspaces_do_not_make_the_row_order_matter(self, name):
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 6)
        order = torch.randperm(64)
        estimator = make_score_estimator(name)
        torch.testing.assert_close(
            estimator.score(corners[order]), estimator.score(corners)[order], rtol=0, atol=1e-7
        )

    @pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_score_scales_inversely_with_the_samples(self, name, scale, dtype):
        x = normal(64, 4, dtype)
        estimator = make_score_estimator(name)
        scaled = estimator.score(x * scale) * scale
        assert relative_error(scaled, estimator.score(x)) < 2e-3

    def test_an_offset_makes_no_difference(self, name):
        x = normal(64, 4)
        estimator = make_score_estimator(name)
        assert relative_error(estimator.score(x + 1e4), estimator.score(x)) < 1e-6

    def test_a_large_offset_in_float32_costs_only_the_digits_that_the_samples_lost(self, name):
        x = (normal(64, 4) + 1e4).to(torch.float32)
        estimator = make_score_estimator(name)
        truth = estimator.score(x.double() - x.double().mean(0))
        assert relative_error(estimator.score(x), truth) < 2e-2

    def test_constant_features_get_score_zero_and_are_counted(self, name):
        x = normal(64, 4)
        padded = torch.cat([x[:, :2], torch.full((64, 3), 7.3).to(x), x[:, 2:]], dim=1)
        estimator = make_score_estimator(name)
        estimate = estimator.estimate(padded)
        assert estimate.diagnostics["num_constant"] == 3.0
        assert (estimate.score[:, 2:5] == 0).all()
        live = torch.cat([estimate.score[:, :2], estimate.score[:, 5:]], dim=1)
        torch.testing.assert_close(live, estimator.score(x))

    @pytest.mark.parametrize("n", [1, 2, 50])
    def test_identical_samples_give_zeros_and_say_so(self, name, n):
        x = torch.full((n, 3), 2.5)
        estimate = make_score_estimator(name).estimate(x, normal(4, 3, torch.float32))
        assert torch.equal(estimate.score, torch.zeros(4, 3))
        assert estimate.diagnostics["degenerate"] == 1.0
        assert estimate.diagnostics["num_constant"] == 3.0

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_values_that_are_not_finite_are_refused_by_name(self, name, bad):
        x = normal(10, 3)
        broken = x.clone()
        broken[4, 1] = bad
        estimator = make_score_estimator(name)
        with pytest.raises(NumericalError, match=r"samples .* \(4, 1\)"):
            estimator.score(broken)
        with pytest.raises(NumericalError, match=r"queries .* \(4, 1\)"):
            estimator.score(x, broken)

    def test_shapes_and_dtypes_are_refused_by_name(self, name):
        estimator = make_score_estimator(name)
        with pytest.raises(InvalidInputError, match="samples has shape"):
            estimator.score(torch.zeros(3))
        with pytest.raises(InvalidInputError, match="queries have 2 features but samples have 3"):
            estimator.score(torch.randn(5, 3), torch.randn(5, 2))
        with pytest.raises(InvalidInputError, match="dtype"):
            estimator.score(torch.zeros(5, 3, dtype=torch.int32))

    def test_queries_need_the_leading_dimensions_of_the_samples(self, name):
        with pytest.raises(InvalidInputError, match=r"leading dimensions \(\) but samples \(2,\)"):
            make_score_estimator(name).score(torch.randn(2, 5, 3), torch.randn(5, 3))

    def test_a_batch_is_as_good_as_one_after_the_other(self, name):
        x = torch.stack([normal(48, 3), 100.0 * normal(48, 3), torch.ones(48, 3).double()])
        x[1, :, 2] = 7.0  # constant in one batch only
        queries = normal(3 * 5, 3).reshape(3, 5, 3)
        estimator = make_score_estimator(name)
        together, elsewhere = estimator.estimate(x), estimator.score(x, queries)
        for i in range(3):
            alone = estimator.estimate(x[i])
            torch.testing.assert_close(together.score[i], alone.score, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(
                elsewhere[i], estimator.score(x[i], queries[i]), rtol=1e-6, atol=1e-9
            )
            for key, value in alone.diagnostics.items():
                torch.testing.assert_close(together.diagnostics[key][i], value)

    def test_leading_dimensions_of_any_number_are_kept(self, name):
        x = normal(2 * 3 * 20, 4).reshape(2, 3, 20, 4)
        estimate = make_score_estimator(name).estimate(x, x[..., :7, :])
        assert estimate.score.shape == (2, 3, 7, 4)
        assert {value.shape for value in estimate.diagnostics.values()} == {(2, 3)}

    def test_without_the_check_bad_values_give_nan_in_their_batch_and_nothing_raises(self, name):
        x = normal(3 * 40, 3).reshape(3, 40, 3)
        x[1, 5, 0], x[2, :, 1] = torch.nan, torch.inf
        estimator = make_score_estimator(name)
        score = estimator.score(x, check=False)
        torch.testing.assert_close(score[0], estimator.score(x[0]), rtol=1e-6, atol=1e-9)
        assert torch.isnan(score[1:]).all()
        broken = torch.where(torch.arange(40)[:, None] == 3, torch.nan, x[0])
        assert torch.isnan(estimator.score(x[0], broken, check=False)).all()

    def test_the_information_gradient_is_the_joint_score_minus_the_marginal(self, name):
        x, z = normal(64, 2), normal(64, 3)
        estimator = make_score_estimator(name)
        gradient = estimator.information_gradient(x, x @ normal(2, 3) + z, wrt_x=True)
        assert gradient.z.shape == (64, 3)
        assert gradient.x.shape == (64, 2)
        assert not gradient.z.requires_grad
        assert {"joint_num_constant", "num_constant"} <= gradient.diagnostics.keys()
        alone = estimator.information_gradient(x, x @ normal(2, 3) + z)
        assert alone.x is None

    def test_and_its_entries_are_those_two_scores(self, name):
        x, z = normal(64, 2), normal(64, 3)
        options = {"transport": False, "shear": False} if name == "gaussian_residual" else {}
        estimator = make_score_estimator(name, **options)
        gradient = estimator.information_gradient(x, z, wrt_x=True)
        joint = estimator.score(torch.cat([z, x], dim=1))
        torch.testing.assert_close(gradient.z, joint[:, :3] - estimator.score(z))
        torch.testing.assert_close(gradient.x, joint[:, 3:] - estimator.score(x))

    @pytest.mark.parametrize("pairs", [bent_pairs, integer_pairs])
    def test_an_information_gradient_follows_rows_origins_and_a_common_unit(self, name, pairs):
        x, z = pairs()
        order = torch.randperm(len(x))
        estimator = make_score_estimator(name)
        gradient = estimator.information_gradient(x, z, wrt_x=True)
        other = estimator.information_gradient(
            1e3 * x[order] - 7.0, 1e3 * z[order] + 5.0, wrt_x=True
        )
        assert relative_error(1e3 * other.z, gradient.z[order]) < 1e-6
        assert relative_error(1e3 * other.x, gradient.x[order]) < 1e-6

    def test_information_gradients_of_a_batch_keep_to_themselves(self, name):
        pairs = [bent_pairs(), integer_pairs(), bent_pairs()]
        x, z = (torch.stack(sides) for sides in zip(*pairs, strict=True))
        x[1, 3, 1] = torch.nan
        estimator = make_score_estimator(name)
        together = estimator.information_gradient(x, z, wrt_x=True, check=False)
        assert torch.isnan(together.z[1]).all()
        assert torch.isnan(together.x[1]).all()
        for i in (0, 2):
            alone = estimator.information_gradient(x[i], z[i], wrt_x=True)
            assert relative_error(together.z[i], alone.z) < 1e-8
            assert relative_error(together.x[i], alone.x) < 1e-8

    def test_a_float32_information_gradient_agrees_with_float64(self, name):
        x, z = bent_pairs()
        estimator = make_score_estimator(name)
        single = estimator.information_gradient(x.float(), z.float()).z
        assert relative_error(single, estimator.information_gradient(x, z).z) < 2e-2

    def test_no_step_waits_for_the_device_or_holds_a_tensor_of_pairs_and_features(self, name):
        """A Cholesky factor may ask on a CPU; eigenvalues wait by themselves."""

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                reads = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
                assert func not in reads or any(
                    frame.filename.endswith("mige/linalg.py") for frame in traceback.extract_stack()
                )
                result = func(*args, **(kwargs or {}))
                for tensor in result if isinstance(result, tuple) else (result,):
                    if isinstance(tensor, torch.Tensor):
                        assert tensor.numel() <= 2 * 100**2
                return result

        x, z, estimator = normal(100, 4), normal(100, 24), make_score_estimator(name)
        with Watch():
            estimator.information_gradient(x, z, wrt_x=True, check=False)
            estimator.entropy_score(z, check=False)
            estimator.score(z, z[:50], check=False)

    def test_an_entropy_score_is_a_score_at_the_samples(self, name):
        x = (
            normal(256, 3)
            @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0], [0.0, 0.3, 0.1]]).double()
        )
        x = torch.cat([x, torch.ones(256, 1)], dim=1)
        estimate = make_score_estimator(name).entropy_score(x)
        assert not estimate.score.requires_grad
        assert torch.equal(estimate.score[:, 3], torch.zeros(256).double())
        assert estimate.diagnostics["num_constant"] == 1.0
        scaled = make_score_estimator(name).entropy_score(1e3 * x).score
        torch.testing.assert_close(1e3 * scaled, estimate.score, rtol=1e-5, atol=1e-6)
        x[5, 1] = torch.nan
        with pytest.raises(NumericalError, match=r"samples .* \(5, 1\)"):
            make_score_estimator(name).entropy_score(x)
        assert torch.isnan(make_score_estimator(name).entropy_score(x, check=False).score).all()

    def test_no_information_flows_along_a_constant_feature(self, name):
        x, z = normal(64, 2), torch.cat([normal(64, 2), torch.ones(64, 1)], dim=1)
        gradient = make_score_estimator(name).information_gradient(x, z)
        assert torch.equal(gradient.z[:, 2], torch.zeros(64).to(z))
        assert torch.isfinite(gradient.z).all()

    def test_pairs_of_two_precisions_are_computed_in_the_finer(self, name):
        gradient = make_score_estimator(name).information_gradient(
            normal(40, 2, torch.float32), normal(40, 2)
        )
        assert gradient.z.dtype == torch.float64

    @pytest.mark.parametrize("which", ["x", "z"])
    def test_pairs_with_values_that_are_not_finite_are_refused_by_name(self, name, which):
        pairs = {"x": normal(20, 2), "z": normal(20, 2)}
        pairs[which][3, 1] = torch.nan
        with pytest.raises(NumericalError, match=rf"{which} holds 1 .* \(3, 1\)"):
            make_score_estimator(name).information_gradient(**pairs)
        broken = make_score_estimator(name).information_gradient(**pairs, check=False)
        assert torch.isnan(broken.z).all()

    def test_unknown_options_are_refused_with_what_is_allowed(self, name):
        with pytest.raises(InvalidInputError, match=r"no option 'threshold': its .*bandwidth"):
            make_score_estimator(name, threshold=0.9)

    def test_diagnostics_are_finite_scalars(self, name):
        diagnostics = make_score_estimator(name).estimate(normal(64, 4)).diagnostics
        assert {"num_constant", "degenerate", "bandwidth", "effective_rank"} <= diagnostics.keys()
        for value in diagnostics.values():
            assert value.shape == ()
            assert torch.isfinite(value)

    def test_the_minimum_grows_with_the_width_or_stays(self, name):
        estimator = make_score_estimator(name)
        counts = [estimator.minimum_samples(dim) for dim in (1, 2, 48, 1024)]
        assert counts == sorted(counts)
        assert counts[0] >= 2

    def test_survives_pickling(self, name):
        estimator = make_score_estimator(name)
        copy = pickle.loads(pickle.dumps(estimator))
        x = normal(30, 2)
        assert torch.equal(copy.score(x), estimator.score(x))


def duplicates():
    return normal(16, 4).repeat(8, 1)


def two_points():
    return torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(32, 1)


def mostly_equal():
    x = normal(64, 4)
    x[:60] = x[0]
    return x


def dead_half():
    return torch.cat([normal(64, 4), torch.zeros(64, 4)], dim=1)


def collinear():
    x = normal(64, 3)
    return torch.cat([x, x @ normal(3, 3), x[:, :1]], dim=1)


def saturated():
    return torch.tanh(20.0 * normal(64, 4))


def one_hot():
    return torch.eye(8).repeat(10, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "samples",
    [
        duplicates,
        two_points,
        mostly_equal,
        dead_half,
        collinear,
        saturated,
        one_hot,
        lambda: normal(2, 5),
        lambda: normal(3, 3),
        lambda: normal(8, 64),
        lambda: normal(64, 64),
        lambda: normal(65, 64),
        lambda: normal(128, 64),
        lambda: normal(64, 4) * torch.tensor([1e-6, 1e-3, 1.0, 1e3], dtype=torch.float64),
        lambda: normal(64, 1),
    ],
)
def test_awkward_samples_give_finite_scores_of_reasonable_size(name, samples, dtype):
    x = samples().to(dtype)
    estimator = make_score_estimator(name)
    for score in (estimator.score(x), estimator.score(x, x[: len(x) // 2])):
        assert torch.isfinite(score).all()
    # −E s·z ≤ the number of features: Stein's identity, with equality for a perfect estimate.
    centred = x - x.mean(0)
    assert -1e-6 <= float(-(estimator.score(x) * centred).sum(1).mean()) <= 1.05 * x.shape[1] + 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_outlier_a_million_times_off_is_survived(name, dtype):
    x = normal(64, 4, dtype)
    x[0] *= 1e6
    assert torch.isfinite(make_score_estimator(name).score(x)).all()
