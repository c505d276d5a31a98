"""Attention and transformer layers against plain loops in float64."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from merlin_models.transformers import RelativeSelfAttention, TransformerEncoder, TransformerLayer
from merlin_models.transformers.attention import shifted

MASK = np.array([[True, True, True, True], [True, True, False, False]])


def weights_of(layer):
    return {weight.path.split("/")[-1]: np.asarray(weight, np.float64) for weight in layer.weights}


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def randomized(layer, rng):
    """The layer, built for dim 6, with weights large enough to matter."""
    layer.build((None, None, 6))
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    return layer


def allowed(b, i, j, causal):
    return MASK[b, j] and (j <= i or not causal)


def relative_reference(layer, x, causal):
    w = weights_of(layer)
    out = np.zeros_like(x)
    for b in range(2):
        for i in range(4):
            for h in range(layer.num_heads):
                q = x[b, i] @ w["query"][:, h]
                keys = [j for j in range(4) if allowed(b, i, j, causal)]
                scores = []
                for j in keys:
                    angles = [(i - j) * 10000.0 ** (-k / 3) for k in range(3)]
                    r = np.concatenate([np.sin(angles), np.cos(angles)]) @ w["position"][:, h]
                    score = (q + w["content_bias"][h]) @ (x[b, j] @ w["key"][:, h]) + (q + w["position_bias"][h]) @ r
                    scores.append(score / math.sqrt(layer.key_dim))
                mixed = softmax(np.array(scores)) @ np.stack([x[b, j] @ w["value"][:, h] for j in keys])
                out[b, i] += mixed @ w["output"][h]
    return out


@pytest.mark.parametrize("causal", [False, True])
def test_relative_attention(causal, rng):
    layer = randomized(RelativeSelfAttention(2, 3, causal=causal), rng)
    x = rng.normal(size=(2, 4, 6))
    out, weights = layer(x, attention_mask=tf.constant(MASK), return_attention_scores=True)
    np.testing.assert_allclose(out, relative_reference(layer, x, causal), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(weights).sum(axis=-1), np.ones((2, 2, 4)), rtol=1e-5)
    assert not np.asarray(weights)[1, :, :2, 2:].any()  # padding


def test_distances_and_not_places_count(rng):
    layer = randomized(RelativeSelfAttention(2, 3), rng)
    x = rng.normal(size=(1, 3, 6)).astype(np.float32)
    later = np.concatenate([np.zeros((1, 4, 6), np.float32), x], axis=1)
    mask = tf.constant([[False] * 4 + [True] * 3])
    np.testing.assert_allclose(layer(later, attention_mask=mask)[:, 4:], layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_shifted(length, rng):
    x = rng.normal(size=(2, 3, length, max(2 * length - 1, 0)))
    out = np.asarray(shifted(tf.constant(x) if length else tf.zeros((2, 3, 0, 0)), length))
    assert out.shape == (2, 3, length, length)
    for i in range(length):
        for j in range(length):
            np.testing.assert_array_equal(out[..., i, j], x[..., i, j - i + length - 1])


def layer_norm(x, epsilon, gamma, beta):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * gamma + beta


def attention_reference(attention, x, causal):
    w = {name: (np.asarray(d.kernel, np.float64), np.asarray(d.bias, np.float64)) for name, d in attention.items()}
    out = np.zeros_like(x)
    for b in range(2):
        for i in range(4):
            keys = [j for j in range(4) if allowed(b, i, j, causal)]
            out[b, i] += w["output"][1]
            for h in range(2):
                q, *rows = (
                    np.einsum("d,dk->k", x[b, j], w[name][0][:, h]) + w[name][1][h]
                    for name, j in [("query", i), *(("key", j) for j in keys), *(("value", j) for j in keys)]
                )
                k, v = np.stack(rows[: len(keys)]), np.stack(rows[len(keys) :])
                out[b, i] += softmax(k @ q / math.sqrt(3)) @ v @ w["output"][0][h]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_layer(norm_first, causal, rng):
    layer = TransformerLayer(6, 2, 5, "relu", 0.1, norm_first=norm_first, causal=causal, dropout=0.5)
    randomized(layer, rng)
    x = rng.normal(size=(2, 4, 6))
    mha = layer.attention
    parts = {"query": mha._query_dense, "key": mha._key_dense, "value": mha._value_dense, "output": mha._output_dense}
    norms = [lambda y, n=n: layer_norm(y, 0.1, np.asarray(n.gamma), np.asarray(n.beta)) for n in layer.norms]

    def network(y):
        inner = np.maximum(y @ np.asarray(layer.inner.kernel) + np.asarray(layer.inner.bias), 0)
        return inner @ np.asarray(layer.outer.kernel) + np.asarray(layer.outer.bias)

    if norm_first:
        y = x + attention_reference(parts, norms[0](x), causal)
        expected = y + network(norms[1](y))
    else:
        y = norms[0](x + attention_reference(parts, x, causal))
        expected = norms[1](y + network(y))
    out, weights = layer(x, mask=tf.constant(MASK), return_attentions=True)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert weights.shape == (2, 2, 4, 4)
    assert not np.allclose(layer(x, training=True), layer(x))  # dropout


def test_encoder(rng):
    encoder = TransformerEncoder(6, 2, 2, norm_last=True, use_pooler=True, return_attentions=True)
    x = rng.normal(size=(2, 4, 6)).astype(np.float32)
    found = encoder(x)
    assert [len(found[name]) for name in ("hidden_states", "attentions")] == [3, 2]
    np.testing.assert_allclose(found["hidden_states"][0], x + encoder.positions[:4], rtol=1e-5)
    np.testing.assert_array_equal(found["hidden_states"][-1], found["last_hidden_state"])
    np.testing.assert_allclose(np.asarray(found["last_hidden_state"]).mean(axis=-1), np.zeros((2, 4)), atol=1e-5)
    np.testing.assert_allclose(found["pooler_output"], encoder.pooler(found["last_hidden_state"][:, 0]), rtol=1e-6)
    again = TransformerEncoder.from_config(encoder.get_config())
    assert again.get_config() == encoder.get_config()
    spec = again.compute_output_spec(keras.KerasTensor((None, None, 6)))
    assert spec["last_hidden_state"].shape == (None, None, 6)
    assert spec["attentions"][0].shape == (None, 2, None, None)


def test_kernels_are_drawn_apart():
    encoder = TransformerEncoder(8, 2, 2, d_inner=8)
    encoder.build((None, None, 8))
    kernels = [np.asarray(weight).ravel() for weight in encoder.weights if weight.path.endswith("kernel")]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_head": 4}, r"n_head must divide d_model. Received: 4 and 6"),
        ({"n_layer": 0}, r"n_layer must be a positive integer. Received: 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\). Received: 1.0"),
        ({"position": "rotary"}, r"position must be one of .* Received: 'rotary'"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        TransformerEncoder(**{"d_model": 6, "n_head": 2, "n_layer": 1, **options})
