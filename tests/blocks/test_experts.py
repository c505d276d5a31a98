"""Mixtures of experts, against a reference in plain NumPy, float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from merlin_models.blocks import CGCBlock, ExpertsGate, MLPBlock, MMOEBlock, PLEBlock
from merlin_models.models import Model
from merlin_models.tasks import BinaryClassificationTask, ParallelPredictionBlock, RegressionTask

NAMES = ["click", "like"]


def dense(layer, x):
    kernel, bias = (np.asarray(weight, np.float64) for weight in layer.get_weights())
    return x @ kernel + bias


def expert(block, x):
    """An MLPBlock of one layer with relu."""
    return np.maximum(dense(block.layers[0], x), 0)


def gate_reference(gate, experts, shortcut):
    read = shortcut if gate.gate_block is None else expert(gate.gate_block, shortcut)
    scores = dense(gate.scores, read) / gate.softmax_temperature
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return sum(weights[..., i : i + 1] * each for i, each in enumerate(experts))


def cgc_reference(block, inputs):
    shared = [expert(each, inputs["shared"]) for each in block.shared_experts]
    own = {
        name: [expert(each, inputs[name]) for each in experts]
        for name, experts in zip(block.output_names, block.task_experts, strict=True)
    }
    outputs = {
        name: gate_reference(gate, [*own[name], *shared], inputs[name])
        for name, gate in zip(block.output_names, block.gates, strict=True)
    }
    if block.shared_gate is not None:
        everyone = [each for experts in own.values() for each in experts]
        outputs["shared"] = gate_reference(block.shared_gate, [*everyone, *shared], inputs["shared"])
    return outputs


def check(outputs, expected):
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-5)


def random(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def test_gate_by_hand():
    gate = ExpertsGate(2)
    inputs = {"experts": np.array([[[1.0, 10.0], [3.0, 30.0]]]), "shortcut": np.array([[1.0]])}
    gate(inputs)
    gate.set_weights([np.array([[0.0, np.log(3.0)]]), np.zeros(2)])  # a quarter of the first, three of the second
    np.testing.assert_allclose(gate(inputs), [[2.5, 25.0]], rtol=1e-6)
    sharp = ExpertsGate(2, softmax_temperature=0.1)
    sharp(inputs)
    sharp.set_weights(gate.get_weights())
    weight = 1 / (1 + 3.0**10)
    np.testing.assert_allclose(sharp(inputs), [[3 - 2 * weight, 30 - 20 * weight]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 7), (0, 7)])
@pytest.mark.parametrize("gate_block", [None, MLPBlock([6])])
def test_mmoe(rng, shape, gate_block):
    block = MMOEBlock(NAMES, MLPBlock([4]), 3, gate_block, gate_softmax_temperature=0.7)
    x = random(rng, *shape)
    outputs = block(x)
    experts = [expert(each, x) for each in block.experts]
    check(outputs, {n: gate_reference(g, experts, x) for n, g in zip(NAMES, block.gates, strict=True)})


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 7), (0, 7)])
@pytest.mark.parametrize("add_shared_gate", [False, True])
def test_cgc(rng, shape, add_shared_gate):
    block = CGCBlock(NAMES, MLPBlock([4]), 2, 3, add_shared_gate, MLPBlock([6]), 0.7)
    x = random(rng, *shape)
    check(block(x), cgc_reference(block, dict.fromkeys([*NAMES, "shared"], x)))
    per_output = {name: random(rng, *shape) for name in [*NAMES, "shared"]}
    check(block(per_output), cgc_reference(block, per_output))


def test_ple(rng):
    block = PLEBlock(3, NAMES, MLPBlock([4]), 2, 1)
    x = random(rng, 5, 7)
    expected = dict.fromkeys([*NAMES, "shared"], x)
    outputs = block(x)
    for extraction in block.extractions:
        expected = cgc_reference(extraction, expected)
    assert list(expected) == NAMES  # no shared gate in the last
    check(outputs, expected)


def test_dictionaries_are_concatenated(rng):
    a, b = random(rng, 4, 2), random(rng, 4, 3)
    for block in (
        MMOEBlock(NAMES, MLPBlock([4]), 2),
        CGCBlock(NAMES, MLPBlock([4])),
        PLEBlock(2, NAMES, MLPBlock([4])),
    ):
        out = block({"b": b, "a": a})
        check(out, {name: np.asarray(value) for name, value in block(np.concatenate([a, b], 1)).items()})


def test_experts_have_weights_of_their_own():
    template = MLPBlock([4])
    for block, count in [
        (MMOEBlock(NAMES, template, 3), 3),
        (CGCBlock(NAMES, template, 2, 3), 7),
        (PLEBlock(2, NAMES, template, 2, 3), 14),
    ]:
        block(np.ones((2, 7), np.float32))
        of_experts = [weight for weight in block.weights if "expert_" in weight.path and "kernel" in weight.path]
        assert len(of_experts) == count
        values = [np.asarray(weight).tobytes() for weight in of_experts]
        assert len(set(values)) == count
        assert not template.built


def test_names_of_outputs():
    tasks = [BinaryClassificationTask("click"), RegressionTask("time")]
    expected = [task.task_name for task in tasks]
    for outputs in (tasks, ParallelPredictionBlock(*tasks), dict(enumerate(tasks)), expected):
        assert MMOEBlock(outputs, MLPBlock([4]), 2).output_names == expected
    assert CGCBlock("click", MLPBlock([4])).output_names == ["click"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: MMOEBlock(NAMES, MLPBlock([4]), 0),
            ValueError,
            r"num_experts must be a positive integer. Received: 0",
        ),
        (lambda: CGCBlock(NAMES, MLPBlock([4]), 0), ValueError, "num_task_experts must be"),
        (lambda: CGCBlock(NAMES, MLPBlock([4]), 1, 1.5), ValueError, r"num_shared_experts must be .* Received: 1.5"),
        (lambda: PLEBlock(0, NAMES, MLPBlock([4])), ValueError, "num_layers must be"),
        (lambda: MMOEBlock(["a", "a"], MLPBlock([4]), 2), ValueError, r"each once. Received: \['a', 'a'\]"),
        (lambda: MMOEBlock([], MLPBlock([4]), 2), ValueError, r"one or several, each once. Received: \[\]"),
        (lambda: MMOEBlock([3], MLPBlock([4]), 2), ValueError, r"must be tasks or names.* Received: \[3\]"),
        (lambda: CGCBlock(["shared"], MLPBlock([4])), ValueError, "No output may be named 'shared'"),
        (lambda: MMOEBlock(NAMES, "mlp", 2), TypeError, r"expert_block must be a Keras layer. Received: 'mlp'"),
        (lambda: CGCBlock(NAMES, MLPBlock([4]), gate_block=3), TypeError, r"gate_block must be .* Received: 3"),
        (lambda: ExpertsGate(2, softmax_temperature=0), ValueError, r"must be positive. Received: 0"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_outputs_are_those_of_the_tasks():
    tasks = [BinaryClassificationTask("click"), BinaryClassificationTask("buy")]
    for make in (lambda names: MMOEBlock(names, MLPBlock([4]), 2), lambda names: CGCBlock(names, MLPBlock([4]))):
        Model(make(["click", "buy"]), *tasks)
        Model(make([task.task_name for task in tasks]), *tasks)
        with pytest.raises(ValueError, match=r"must be those of the tasks, .* Received: \['click', 'like'\]"):
            Model(make(NAMES), *tasks)


def test_wrong_number_of_experts():
    with pytest.raises(ValueError, match="'experts' must hold 2 experts"):
        ExpertsGate(2)({"experts": np.ones((4, 3, 5)), "shortcut": np.ones((4, 5))})


@pytest.mark.parametrize(
    "make",
    [
        lambda: MMOEBlock(NAMES, MLPBlock([4]), 3, MLPBlock([2]), 0.5),
        lambda: MMOEBlock(NAMES, keras.layers.Dense(4, name="mine"), 2),
        lambda: CGCBlock(NAMES, MLPBlock([4]), 2, 1, True, MLPBlock([2]), 0.5),
        lambda: PLEBlock(2, NAMES, MLPBlock([4]), 2, 1, MLPBlock([2]), 0.5),
    ],
)
def test_file(rng, tmp_path, make):
    inputs = keras.Input((7,))
    block = make()
    model = keras.Model(inputs, block(inputs))
    x = random(rng, 5, 7)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    check(again(x), {name: np.asarray(value) for name, value in model(x).items()})
    copy = type(block).from_config(block.get_config())
    assert copy.get_config() == block.get_config()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(rng, policy):
    block = PLEBlock(2, NAMES, MLPBlock([4], dtype=policy), gate_block=MLPBlock([4], dtype=policy), dtype=policy)
    x = random(rng, 5, 7)
    outputs = block(x)
    assert {keras.backend.standardize_dtype(value.dtype) for value in outputs.values()} == {policy[6:]}
    plain = PLEBlock(2, NAMES, MLPBlock([4]), gate_block=MLPBlock([4]))
    plain(x)
    plain.set_weights(block.get_weights())
    for name, value in plain(x).items():
        np.testing.assert_allclose(keras.ops.cast(outputs[name], "float32"), value, rtol=0.1, atol=0.05)
