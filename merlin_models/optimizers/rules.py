"""How embedding tables are trained: one class a rule, and what matches a Keras optimizer."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.ops.update_rule import UpdateRule

_PACKAGE = "merlin_models"


class EmbeddingOptimizer:
    """A row-sparse rule for embedding tables: what :class:`RowSparse` does to the rows that a batch touches.

    Rows outside of the batch do not move, and neither does their state: the rules are *lazy*.

    Args:
        learning_rate: a float, a ``LearningRateSchedule``, or None for that of the optimizer that RowSparse wraps.
        weight_decay: decoupled decay, ``row -= learning_rate * weight_decay * row`` at each step that touches the row.
        clipnorm: largest norm of a row's gradient, or None.
        l2: adds ``2 * l2 * row`` to the gradient of a touched row, once a step.
        stochastic_rounding: round float16 and bfloat16 tables at random instead of to nearest, so that small steps count
            in the mean.
        seed: of the rounding.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> from merlin_models import optimizers
        >>> optimizers.LazyAdam(0.01, clipnorm=1.0)
        LazyAdam(learning_rate=0.01, clipnorm=1.0, beta_1=0.9, beta_2=0.999, epsilon=1e-07)
    """

    rule_name = ""

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = None,
        *,
        weight_decay: float = 0.0,
        clipnorm: float | None = None,
        l2: float = 0.0,
        stochastic_rounding: bool = False,
        seed: int = 0,
    ):
        schedule = isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule)
        if learning_rate is not None and not schedule and not float(learning_rate) >= 0.0:
            raise ValueError(
                f"learning_rate must be None, a schedule or a number that is not negative. Received: {learning_rate!r}"
            )
        if clipnorm is not None and not clipnorm > 0.0:
            raise ValueError(f"clipnorm must be None or positive. Received: {clipnorm!r}")
        self.learning_rate = learning_rate if schedule or learning_rate is None else float(learning_rate)
        self.weight_decay, self.clipnorm, self.l2 = float(weight_decay), clipnorm, float(l2)
        self.stochastic_rounding, self.seed = bool(stochastic_rounding), int(seed)
        self.update_rule()  # checks the numbers

    def _own_options(self) -> dict[str, Any]:
        """The arguments of the subclass."""
        return {}

    def _rule_options(self) -> dict[str, Any]:
        """What they are called in an UpdateRule."""
        return self._own_options()

    def update_rule(self) -> UpdateRule:
        """The rule for ``merlin_models.ops.embedding_bag_update``."""
        return UpdateRule(
            self.rule_name,
            weight_decay=self.weight_decay,
            clip_norm=self.clipnorm or 0.0,
            stochastic_rounding=self.stochastic_rounding,
            seed=self.seed,
            **{"l2": self.l2, **self._rule_options()},
        )

    def get_config(self) -> dict[str, Any]:
        rate = self.learning_rate
        if rate is not None and not isinstance(rate, float):
            rate = keras.optimizers.schedules.serialize(rate)
        return {
            "learning_rate": rate,
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "l2": self.l2,
            "stochastic_rounding": self.stochastic_rounding,
            "seed": self.seed,
            **self._own_options(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingOptimizer:
        config = dict(config)
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = keras.optimizers.schedules.deserialize(config["learning_rate"])
        return cls(**config)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items() if value)
        return f"{type(self).__name__}({options})"


@keras.saving.register_keras_serializable(_PACKAGE)
class SGD(EmbeddingOptimizer):
    """``row -= learning_rate * g``; with momentum a state of the table's size, as in ``keras.optimizers.SGD``.

    Args:
        learning_rate, **kwargs: as of :class:`EmbeddingOptimizer`.
        momentum: how much of the step before is taken again; not negative.
        nesterov: whether the momentum is Nesterov's.

    Example:
        >>> from merlin_models import optimizers
        >>> [slot.name for slot in optimizers.SGD(0.1, momentum=0.9).update_rule().slots()]
        ['momentum']
    """

    def __init__(self, learning_rate: Any = None, momentum: float = 0.0, nesterov: bool = False, **kwargs: Any):
        self.momentum, self.nesterov = float(momentum), bool(nesterov)
        super().__init__(learning_rate, **kwargs)

    @property
    def rule_name(self) -> str:
        return "momentum" if self.momentum else "sgd"

    def _own_options(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "nesterov": self.nesterov}


@keras.saving.register_keras_serializable(_PACKAGE)
class Adagrad(EmbeddingOptimizer):
    """Adagrad, one accumulator an element (Duchi et al., 2011).

    Args:
        learning_rate, **kwargs: as of :class:`EmbeddingOptimizer`.
        initial_accumulator_value: what the sums of squares start from.
        epsilon: is added to them before the root.

    Example:
        >>> from merlin_models import optimizers
        >>> optimizers.Adagrad(0.05).update_rule().slots()
        (Slot(name='accumulator', per_row=False, initial_value=0.1),)
    """

    rule_name = "adagrad"

    def __init__(
        self, learning_rate: Any = None, initial_accumulator_value: float = 0.1, epsilon: float = 1e-7, **kwargs: Any
    ):
        self.initial_accumulator_value, self.epsilon = float(initial_accumulator_value), float(epsilon)
        super().__init__(learning_rate, **kwargs)

    def _own_options(self) -> dict[str, Any]:
        return {"initial_accumulator_value": self.initial_accumulator_value, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(_PACKAGE)
class RowwiseAdagrad(Adagrad):
    """Adagrad with one accumulator a row, of the mean square of its gradient: 4 bytes a row instead of 4 an element.

    Args:
        learning_rate, initial_accumulator_value, epsilon, **kwargs: as of :class:`Adagrad`.

    Example:
        >>> from merlin_models import optimizers
        >>> optimizers.RowwiseAdagrad(0.05).update_rule().slots()
        (Slot(name='row_accumulator', per_row=True, initial_value=0.1),)

    Reference:
        Naumov et al., https://arxiv.org/abs/1906.00091; the default of large recommenders.
    """

    rule_name = "rowwise_adagrad"


@keras.saving.register_keras_serializable(_PACKAGE)
class LazyAdam(EmbeddingOptimizer):
    """Adam (Kingma and Ba, 2015), on touched rows only; the bias correction takes the global step.

    Args:
        learning_rate, **kwargs: as of :class:`EmbeddingOptimizer`.
        beta_1, beta_2: how fast the two moments forget, in [0, 1).
        epsilon: is added to the root of the second moment.

    Example:
        >>> import merlin_models.tf as ml
        >>> ml.LazyAdam(0.01)  # of tables, or as the optimizer of a model: tables by rows, all else by Keras' Adam
        LazyAdam(learning_rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-07)
    """

    rule_name = "adam"

    def __init__(
        self,
        learning_rate: Any = None,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ):
        self.beta_1, self.beta_2, self.epsilon = float(beta_1), float(beta_2), float(epsilon)
        super().__init__(learning_rate, **kwargs)

    def _own_options(self) -> dict[str, Any]:
        return {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(_PACKAGE)
class LazyAdamW(LazyAdam):
    """LazyAdam with a decoupled weight decay of 0.004 by default (Loshchilov and Hutter, 2019).

    Args:
        learning_rate, **kwargs: as of :class:`LazyAdam`.
        weight_decay: as of :class:`EmbeddingOptimizer`.

    Example:
        >>> from merlin_models import optimizers
        >>> optimizers.LazyAdamW(0.01)
        LazyAdamW(learning_rate=0.01, weight_decay=0.004, beta_1=0.9, beta_2=0.999, epsilon=1e-07)
    """

    def __init__(self, learning_rate: Any = None, weight_decay: float = 0.004, **kwargs: Any):
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)


@keras.saving.register_keras_serializable(_PACKAGE)
class RMSprop(EmbeddingOptimizer):
    """RMSprop without momentum, not centered, as in ``keras.optimizers.RMSprop``.

    Args:
        learning_rate, **kwargs: as of :class:`EmbeddingOptimizer`.
        rho: how fast the mean of squares forgets, in [0, 1).
        epsilon: is added to it before the root.

    Example:
        >>> from merlin_models import optimizers
        >>> optimizers.RMSprop(0.01).update_rule().slots()
        (Slot(name='mean_square', per_row=False, initial_value=0.0),)
    """

    rule_name = "rmsprop"

    def __init__(self, learning_rate: Any = None, rho: float = 0.9, epsilon: float = 1e-7, **kwargs: Any):
        self.rho, self.epsilon = float(rho), float(epsilon)
        super().__init__(learning_rate, **kwargs)

    def _own_options(self) -> dict[str, Any]:
        return {"rho": self.rho, "epsilon": self.epsilon}

    def _rule_options(self) -> dict[str, Any]:
        return {"beta_2": self.rho, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(_PACKAGE)
class Ftrl(EmbeddingOptimizer):
    """FTRL-proximal (McMahan et al., 2013) with a learning-rate power of -1/2, as in ``keras.optimizers.Ftrl``.

    Args:
        learning_rate, **kwargs: as in :class:`EmbeddingOptimizer`; ``l2`` is FTRL's own term.
        initial_accumulator_value: of the squares' sums.
        l1: makes small rows exactly zero.

    Example:
        >>> from merlin_models import optimizers
        >>> [slot.name for slot in optimizers.Ftrl(0.05, l1=0.01).update_rule().slots()]
        ['accumulator', 'linear']
    """

    rule_name = "ftrl"

    def __init__(
        self, learning_rate: Any = None, initial_accumulator_value: float = 0.1, l1: float = 0.0, **kwargs: Any
    ):
        self.initial_accumulator_value, self.l1 = float(initial_accumulator_value), float(l1)
        super().__init__(learning_rate, **kwargs)

    def _own_options(self) -> dict[str, Any]:
        return {"initial_accumulator_value": self.initial_accumulator_value, "l1": self.l1}


def rule_like(optimizer: keras.optimizers.Optimizer) -> EmbeddingOptimizer | None:
    """The row-sparse form of a Keras optimizer, or None if it has none; see :func:`why_no_rule`.

    Its learning rate is None: that of the optimizer. A weight decay becomes one of touched rows.

    Args:
        optimizer: a Keras optimizer.

    Returns:
        An :class:`EmbeddingOptimizer`, or None.

    Example:
        >>> import keras
        >>> from merlin_models.optimizers import rule_like
        >>> rule_like(keras.optimizers.Adagrad(0.1))
        Adagrad(initial_accumulator_value=0.1, epsilon=1e-07)
        >>> rule_like(keras.optimizers.Nadam()) is None
        True
    """
    if why_no_rule(optimizer):
        return None
    kind = type(optimizer).__name__
    common = {"weight_decay": optimizer.weight_decay or 0.0}
    if kind == "SGD":
        return SGD(momentum=optimizer.momentum, nesterov=optimizer.nesterov, **common)
    if kind == "Adagrad":
        return Adagrad(
            initial_accumulator_value=optimizer.initial_accumulator_value, epsilon=optimizer.epsilon, **common
        )
    if kind == "RMSprop":
        return RMSprop(rho=optimizer.rho, epsilon=optimizer.epsilon, **common)
    if kind == "Ftrl":
        return Ftrl(
            initial_accumulator_value=optimizer.initial_accumulator_value,
            l1=optimizer.l1_regularization_strength,
            l2=optimizer.l2_regularization_strength,
            **common,
        )
    return LazyAdam(beta_1=optimizer.beta_1, beta_2=optimizer.beta_2, epsilon=optimizer.epsilon, **common)


def keras_like(rule: EmbeddingOptimizer) -> keras.optimizers.Optimizer:
    """The Keras optimizer of a rule, for variables that are no tables; the inverse of :func:`rule_like`.

    Its learning rate is the rule's, or Keras' default. ``clipnorm`` is about rows, and stays with the tables.

    Args:
        rule: an :class:`EmbeddingOptimizer`.

    Returns:
        A Keras optimizer.

    Raises:
        TypeError: for a rule of another class than those here.

    Example:
        >>> from merlin_models import optimizers
        >>> type(optimizers.keras_like(optimizers.LazyAdam(0.01))).__name__
        'Adam'
    """
    options: dict[str, Any] = {} if rule.learning_rate is None else {"learning_rate": rule.learning_rate}
    options["weight_decay"] = rule.weight_decay or None
    if isinstance(rule, SGD):
        return keras.optimizers.SGD(momentum=rule.momentum, nesterov=rule.nesterov, **options)
    if isinstance(rule, Adagrad):
        return keras.optimizers.Adagrad(
            initial_accumulator_value=rule.initial_accumulator_value, epsilon=rule.epsilon, **options
        )
    if isinstance(rule, LazyAdam):
        return keras.optimizers.Adam(beta_1=rule.beta_1, beta_2=rule.beta_2, epsilon=rule.epsilon, **options)
    if isinstance(rule, RMSprop):
        return keras.optimizers.RMSprop(rho=rule.rho, epsilon=rule.epsilon, **options)
    if isinstance(rule, Ftrl):
        return keras.optimizers.Ftrl(
            initial_accumulator_value=rule.initial_accumulator_value,
            l1_regularization_strength=rule.l1,
            l2_regularization_strength=rule.l2,
            **options,
        )
    raise TypeError(f"rule must be one of this module's. Received: {type(rule).__name__}")


def why_no_rule(optimizer: keras.optimizers.Optimizer) -> str:
    """Why a Keras optimizer has no row-sparse form here, or ''.

    Args:
        optimizer: a Keras optimizer.

    Returns:
        The reason, or an empty string where it has a form.

    Example:
        >>> import keras
        >>> from merlin_models.optimizers import why_no_rule
        >>> why_no_rule(keras.optimizers.Adam(amsgrad=True))
        'Adam has amsgrad=True'
    """
    known = {
        keras.optimizers.SGD: (),
        keras.optimizers.Adagrad: (),
        keras.optimizers.Adam: (("amsgrad", False),),
        keras.optimizers.AdamW: (("amsgrad", False),),
        keras.optimizers.RMSprop: (("momentum", 0.0), ("centered", False)),
        keras.optimizers.Ftrl: (
            ("learning_rate_power", -0.5),
            ("l2_shrinkage_regularization_strength", 0.0),
            ("beta", 0.0),
        ),
    }
    if type(optimizer) not in known:
        names = ", ".join(sorted(each.__name__ for each in known))
        return f"{type(optimizer).__name__} is none of {names}"
    everywhere = (("use_ema", False), ("clipnorm", None), ("clipvalue", None), ("global_clipnorm", None))
    for argument, needed in (*known[type(optimizer)], *everywhere):
        if (getattr(optimizer, argument, needed) or needed) != needed:
            return f"{type(optimizer).__name__} has {argument}={getattr(optimizer, argument)!r}"
    return ""
