"""Values, losses and gradients of our bounds beside those of torch-mist, same weights, same rows.

torch-mist is no dependency of this project, and it wants an older numpy: give it an environment of
its own, outside the project, and run this script there.

    uv venv PEER
    uv pip install --python PEER/bin/python torch-mist pandas jaxtyping safetensors
    PYTHONPATH=. PEER/bin/python tests/benchmarks/bounds_against_torch_mist.py OUTPUT [--seeds 5]

OUTPUT gets peer.md, peer.json and peer.png. Everything is float64, so what is the same formula
agrees to rounding; where torch-mist computes something else, the row says what, and compares our
number turned into theirs. Exit status 1 if a row disagrees.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from tables import environment, markdown
from torch import Tensor, distributions

from mige.bounds import fit_bound, make_bound

try:
    from pyro.distributions import ConditionalDistribution
    from torch_mist.baseline import LearnableBaseline
    from torch_mist.critic import SeparableCritic
    from torch_mist.estimators.discriminative import JS, MINE, NWJ, SMILE, TUBA, InfoNCE
    from torch_mist.estimators.generative import CLUB, DoE, L1Out
except ImportError as error:
    sys.exit(f"torch-mist is not in this environment ({error}): see the head of {__file__}")

ROWS, DIM_X, DIM_Z = 64, 4, 4  # their club and l1out take x and z of equal width only
TOLERANCE = 1e-9  # relative, float64
SMALL: dict[str, object] = {"hidden": (16, 8)}
DENSITIES = ("club", "l1out", "doe")


class Comparison(NamedTuple):
    """One number (or the norm of one gradient) from both sides."""

    bound: str
    quantity: str
    ours: Tensor
    theirs: Tensor
    note: str = ""

    @property
    def difference(self) -> float:
        """Relative to the larger one."""
        scale = max(float(side.detach().norm()) for side in (self.ours, self.theirs))
        return float((self.ours - self.theirs).detach().norm()) / max(scale, 1e-300)


class Conditional(ConditionalDistribution):  # type: ignore[misc]  # no stubs
    """Our q(z | x) as torch-mist takes it."""

    def __init__(self, density: Any) -> None:
        self._density = density

    def condition(self, context: Tensor) -> distributions.Distribution:
        """The density of z at these x, of any leading shape."""
        mean, log_std = self._density._parameters_at(context.reshape(-1, DIM_X))
        shape = (*context.shape[:-1], DIM_Z)
        normal = distributions.Normal(mean.reshape(shape), log_std.exp().reshape(shape))
        return distributions.Independent(normal, 1)


def sample(seed: int) -> tuple[Tensor, Tensor]:
    """Dependent rows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, DIM_X, dtype=torch.float64, generator=generator)
    noise = torch.randn(ROWS, DIM_Z, dtype=torch.float64, generator=generator)
    return x, torch.tanh(x[:, :DIM_Z]) + 0.3 * x[:, 1:2] ** 2 + 0.5 * noise


def fitted(name: str, seed: int, **options: object) -> Any:
    """Our bound after a few steps, so that its scores are no longer small."""
    torch.manual_seed(seed)
    shape = {"hidden": (16, 8)} if name in DENSITIES else {"critic": "separable"} | SMALL
    bound = make_bound(name, DIM_X, DIM_Z, **{**shape, **options}).double()
    fit_bound(bound, lambda: sample(seed), steps=60, learning_rate=3e-3)
    return bound


def gradients(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, z: Tensor) -> Tensor:
    """The gradients in x and z, joined."""
    x, z = x.detach().requires_grad_(), z.detach().requires_grad_()
    return torch.cat([g.flatten() for g in torch.autograd.grad(function(x, z), (x, z))])


def compare(
    name: str, ours: Any, make: Callable[[], Any], seed: int, *, swapped: bool = False
) -> list[Comparison]:
    """Value, loss and gradient where both sides mean the same.

    Theirs is made anew for each: it keeps the last answer, its graph included, for equal rows.
    """

    def theirs(method: str) -> Callable[[Tensor, Tensor], Tensor]:
        call = getattr(make(), method)
        return (lambda x, z: call(z, x)) if swapped else call

    x, z = sample(seed + 1000)
    gradient = gradients(theirs("mutual_information"), x, z)
    return [
        Comparison(name, "value", ours.value(x, z), theirs("mutual_information")(x, z)),
        Comparison(name, "loss", ours.loss(x, z), theirs("loss")(x, z)),
        Comparison(name, "gradient", gradients(ours.value, x, z), gradient),
    ]


def critic_of(ours: Any, *, swapped: bool = False) -> Any:
    """Our two networks as their separable critic."""
    networks = ours.critic.embed_x, ours.critic.embed_z
    return SeparableCritic(*(reversed(networks) if swapped else networks))


def critic_bounds(seed: int) -> list[Comparison]:
    """Those made of a critic's scores; −1 is torch-mist's word for all other rows.

    With −1 the losses of JS and SMILE keep the true pair among the false ones; n − 1 does not.
    """
    nwj, infonce, smile = (
        fitted("nwj", seed),
        fitted("infonce", seed),
        fitted("smile", seed, tau=2.0),
    )
    tuba, jsd, dv = fitted("tuba", seed), fitted("jsd", seed), fitted("dv", seed)
    found = compare("nwj", nwj, lambda: NWJ(critic_of(nwj), neg_samples=-1), seed)
    found += compare("infonce", infonce, lambda: InfoNCE(critic_of(infonce), neg_samples=0), seed)
    found += compare("smile", smile, lambda: SMILE(critic_of(smile), ROWS - 1, tau=2.0), seed)
    value, _, gradient = compare("dv", dv, lambda: MINE(critic_of(dv), neg_samples=-1), seed)
    found += [value, gradient]  # their loss has MINE's running mean: see below

    def make_tuba() -> Any:
        return TUBA(critic_of(tuba, swapped=True), LearnableBaseline(tuba.log_baseline), -1)

    found += compare("tuba (x and z swapped)", tuba, make_tuba, seed, swapped=True)

    def make_js() -> Any:
        return JS(critic_of(jsd), neg_samples=ROWS - 1)

    value, loss, gradient = compare("jsd", jsd, make_js, seed)
    note = "ours is, as documented, that of the objective: compared with minus their loss's"
    of_loss = -gradients(make_js().loss, *sample(seed + 1000))
    return [*found, value, loss, gradient._replace(theirs=of_loss, note=note)]


def running_mean(seed: int) -> list[Comparison]:
    """MINE over three batches: the parameters' gradient with the running mean."""
    torch.manual_seed(seed)
    ours = make_bound(
        "mine", DIM_X, DIM_Z, critic="separable", num_negatives=None, rate=0.1, **SMALL
    ).double()
    theirs = MINE(critic_of(ours), neg_samples=-1, gamma=0.9)
    parameters = list(ours.parameters())
    found = []
    for step in range(3):
        x, z = sample(seed + step)
        mine = torch.autograd.grad(ours.loss(3 * x, 3 * z), parameters)
        other = torch.autograd.grad(theirs.loss(3 * x, 3 * z), parameters)
        found.append(
            Comparison(
                "mine",
                f"parameters' gradient, batch {step + 1}",
                torch.cat([g.flatten() for g in mine]),
                torch.cat([g.flatten() for g in other]),
            )
        )
    return found


def density_bounds(seed: int) -> list[Comparison]:
    """Those made of q(z | x), by the same network on both sides."""
    x, z = sample(seed + 1000)
    doe = fitted("doe", seed)
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(logits=doe.marginal.logits),
        distributions.Independent(
            distributions.Normal(doe.marginal.means, doe.marginal.log_stds.exp()), 1
        ),
    )
    value, loss, gradient = compare(
        "doe", doe, lambda: DoE(Conditional(doe.conditional), mixture), seed
    )
    note = "theirs leaves −log q(z) out unless q is a module: left out of ours"
    loss = loss._replace(ours=loss.ours + doe.marginal(z).mean(), note=note)
    found = [value, loss, gradient]

    club = fitted("club", seed)
    note = "theirs counts the true pair among the false ones: ours times (n − 1)/n"
    value, loss, gradient = compare("club", club, lambda: CLUB(Conditional(club.conditional)), seed)
    share = (ROWS - 1) / ROWS
    found += [
        value._replace(ours=share * value.ours, note=note),
        loss,
        gradient._replace(ours=share * gradient.ours, note=note),
    ]

    l1out = fitted("l1out", seed)
    scores = l1out.conditional.pairwise(x, z)  # (i, j): log q(z_j | x_i)
    others = scores.masked_fill(torch.eye(ROWS, dtype=torch.bool), -torch.inf)
    over_z = scores.diagonal() - (others.logsumexp(1) - math.log(ROWS))
    value, loss, _ = compare("l1out", l1out, lambda: L1Out(Conditional(l1out.conditional)), seed)
    note = (
        "theirs sums over z for a fixed x and divides by n, where the paper sums over x for a "
        f"fixed z and divides by n − 1 (ours: {shown(value.ours)}): ours made the same way"
    )
    return [*found, value._replace(ours=over_z.mean(), note=note), loss]


def shown(result: Tensor) -> str:
    """A number itself, a gradient by its norm."""
    return f"{float((result if result.ndim == 0 else result.norm()).detach()):.9g}"


def main() -> None:
    """Compare, write, and fail if something disagrees."""
    parser = argparse.ArgumentParser(description="Our bounds beside torch-mist's.")
    parser.add_argument("output", type=Path, help="gets peer.md, peer.json, peer.png")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, str], list[Comparison]] = {}
    for seed in range(1 if arguments.quick else arguments.seeds):
        for row in [*critic_bounds(seed), *running_mean(seed), *density_bounds(seed)]:
            found.setdefault((row.bound, row.quantity), []).append(row)
    worst = {key: max(row.difference for row in rows) for key, rows in found.items()}
    columns = ["bound", "quantity", "ours (seed 0)", "torch-mist", "worst rel. difference", "note"]
    lines = [
        [*key, shown(rows[0].ours), shown(rows[0].theirs), f"{worst[key]:.1e}", rows[0].note]
        for key, rows in found.items()
    ]
    text = markdown(columns, lines)
    text += "\nGradients are shown by their norm.\n"
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "peer.md").write_text(text)
    record = {"environment": environment() | {"torch-mist": version("torch-mist")}}
    record |= {"columns": columns, "rows": lines}
    (arguments.output / "peer.json").write_text(json.dumps(record, indent=1))
    figure = Figure(figsize=(8, 7), layout="constrained")
    axis = figure.subplots()
    axis.barh([", ".join(key) for key in worst], [max(w, 1e-17) for w in worst.values()])
    axis.axvline(TOLERANCE, color="k", linestyle="--")
    axis.set(xscale="log", xlabel="worst relative difference to torch-mist (float64)")
    figure.savefig(arguments.output / "peer.png", dpi=120)
    print(text)  # noqa: T201  the command's output
    if max(worst.values()) > TOLERANCE:
        sys.exit("some rows disagree")


if __name__ == "__main__":
    main()
