"""What a training step does to the rows of an embedding table that a batch touches."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Slot(NamedTuple):
    """State that a rule keeps for a table, in float32.

    Attributes:
        name: what the rule calls it.
        per_row: one number a row, shape (rows,); else shape (rows, dim).
        initial_value: of all its elements.

    Example:
        >>> from merlin_models.ops import UpdateRule
        >>> (slot,) = UpdateRule("rowwise_adagrad").slots()
        >>> slot, slot.shape(rows=10, dim=4)
        (Slot(name='row_accumulator', per_row=True, initial_value=0.1), (10,))
    """

    name: str
    per_row: bool
    initial_value: float

    def shape(self, rows: int, dim: int) -> tuple[int, ...]:
        """The shape of the state of a table (rows, dim)."""
        return (rows,) if self.per_row else (rows, dim)


_SLOTS = {
    "sgd": (),
    "momentum": (("momentum", False),),
    "adagrad": (("accumulator", False),),
    "rowwise_adagrad": (("row_accumulator", True),),
    "adam": (("first_moment", False), ("second_moment", False)),
    "rmsprop": (("mean_square", False),),
    "ftrl": (("accumulator", False), ("linear", False)),
    "accumulate": (("touched", True),),
}
_ACCUMULATORS = ("accumulator", "row_accumulator")


@dataclasses.dataclass(frozen=True)
class UpdateRule:
    """One of the row-sparse update rules, with its numbers.

    For a touched row w with the summed gradient g, in this order: ``g += 2 l2 w`` (not for ftrl, where l2 is its own
    term); ``g *= min(1, clip_norm / ||g||)`` if clip_norm > 0; ``w -= lr weight_decay w``; then

    ======================= ==================================================================================
    ``sgd``                 w -= lr g
    ``momentum``            m = momentum m - lr g; w += m (nesterov: w += momentum m - lr g)
    ``adagrad``             a += g^2; w -= lr g / sqrt(a + epsilon)
    ``rowwise_adagrad``     a += mean(g^2); w -= lr g / sqrt(a + epsilon), one a for the row
    ``adam``                m += (1 - beta_1)(g - m); v += (1 - beta_2)(g^2 - v);
                            w -= lr sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon), t the global step
    ``rmsprop``             v = beta_2 v + (1 - beta_2) g^2; w -= lr g / sqrt(v + epsilon)
    ``ftrl``                n' = n + g^2; z += g - (sqrt(n') - sqrt(n)) / lr w;
                            w = (clip(z, -l1, l1) - z) / (sqrt(n') / lr + 2 l2); n = n'
    ``accumulate``          w += g, and notes the row: sums gradients over several batches
    ======================= ==================================================================================

    Attributes:
        name: of the rule, as above.
        beta_1, beta_2, epsilon, momentum, nesterov: as above.
        weight_decay: decoupled from the gradient, on touched rows only.
        l1, l2: see above.
        clip_norm: largest norm of a row's gradient; 0 for none.
        stochastic_rounding: float16 and bfloat16 tables are rounded up or down at random, right in the mean; else to
            nearest.
        seed: of the rounding.
        initial_accumulator_value: what the accumulators of adagrad, rowwise_adagrad and ftrl start from.

    Raises:
        ValueError: for an unknown name or a number out of range.

    Example:
        >>> from merlin_models.ops import UpdateRule
        >>> [slot.name for slot in UpdateRule("adam", weight_decay=0.01).slots()]
        ['first_moment', 'second_moment']
    """

    name: str
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    clip_norm: float = 0.0
    stochastic_rounding: bool = False
    seed: int = 0
    initial_accumulator_value: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in _SLOTS:
            raise ValueError(f"name of a rule must be one of {sorted(_SLOTS)}. Received: {self.name!r}")
        for argument in ("beta_1", "beta_2"):
            if not 0.0 <= getattr(self, argument) < 1.0:
                raise ValueError(f"{argument} must be in [0, 1). Received: {getattr(self, argument)}")
        numbers = ("epsilon", "momentum", "weight_decay", "l1", "l2", "clip_norm", "initial_accumulator_value")
        for argument in numbers:
            if not getattr(self, argument) >= 0.0:
                raise ValueError(f"{argument} must not be negative. Received: {getattr(self, argument)}")

    def slots(self) -> tuple[Slot, ...]:
        """The state of a table under this rule."""
        return tuple(
            Slot(name, per_row, self.initial_accumulator_value if name in _ACCUMULATORS else 0.0)
            for name, per_row in _SLOTS[self.name]
        )

    def numbers(self) -> dict[str, float | bool | int]:
        """The attributes that the kernels take beside the name."""
        config = dataclasses.asdict(self)
        del config["name"], config["initial_accumulator_value"]
        return config
