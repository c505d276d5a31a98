"""Exports answer like their models: in fresh processes, with this library and, portable, where it cannot be imported."""

from __future__ import annotations

import os
import pathlib
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_data import FAMILIES, IDS, SCHEMA, as_features, batch, cases_of, ranking, recommender

import merlin_models.tf as ml
from merlin_models.blocks.base import Block
from merlin_models.ops import inbatch_softmax
from merlin_models.serving.inputs import inputs_of

NATIVE = ("mlp", "dlrm", "several_tasks", "recommender")
KERAS = ("dlrm", "several_tasks", "item_encoder")
SCRIPT = pathlib.Path(__file__).with_name("fresh_process.py")
TF32 = 4e-3  # how far apart answers of a GPU and a CPU may be: TensorFlow multiplies float32 by TF32 there


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder "portable" with an export of each family, a folder "native" of some, and the answers to compare with."""
    folder = tmp_path_factory.mktemp("exports")
    for kind in ("portable", "native"):
        (folder / kind).mkdir()
    least = TF32 if tf.config.list_physical_devices("GPU") else 0.0
    for name, family in FAMILIES.items():
        keras.utils.set_random_seed(7)
        model = family.make()
        tolerances = {"tolerance": max(family.tolerance, least), "tolerance_of_keras": least}
        recorded = pickle.dumps({"cases": cases_of(model, family), **tolerances})
        for kind in ("portable", "native") if name in NATIVE else ("portable",):
            model.export(folder / kind / name, portable=kind == "portable", verbose=False)
            (folder / kind / f"{name}.pickle").write_bytes(recorded)
        if name in KERAS:
            model.save(folder / "native" / f"{name}.keras")
            (folder / "native" / f"{name}.keras_pickle").write_bytes(recorded)
    return folder


def in_a_fresh_process(*arguments, before="", **variables):
    code = f"{before}\nimport runpy, sys\nsys.argv = {[str(SCRIPT), *map(str, arguments)]}\n"
    code += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


def test_portable_exports_where_this_library_is_not(exports):
    printed = in_a_fresh_process(exports / "portable", "without")
    cases, with_lists = 3 * (len(FAMILIES) + 1), len(FAMILIES) - 3  # the recommender has each case twice
    by_two_ways, padded, columns = 2 * cases, 3 * with_lists, len(FAMILIES) + 1
    assert f"all equal: {by_two_ways + padded + columns}" in printed
    # What a user of an export that is not portable reads there; docs/serving.md quotes it.
    assert "Op type not registered 'MerlinResourceEmbeddingBag'" in printed


def test_native_exports_and_keras_files(exports):
    printed = in_a_fresh_process(exports / "native", before="import merlin_models.tf")
    assert "all equal: " in printed


@pytest.mark.gpu
@pytest.mark.parametrize("visible", ["0", ""], ids=["with a GPU", "without"])
def test_exports_made_on_a_gpu(exports, visible):
    seen = f"assert len(tf.config.list_physical_devices('GPU')) == {int(visible == '0')}"
    before = f"import tensorflow as tf\n{seen}"
    printed = in_a_fresh_process(exports / "portable", "without", before=before, CUDA_VISIBLE_DEVICES=visible)
    assert "all equal: " in printed
    before += "\nimport merlin_models.tf"
    assert "all equal: " in in_a_fresh_process(exports / "native", before=before, CUDA_VISIBLE_DEVICES=visible)


def test_portable_exports_have_no_op_of_ours(exports):
    for name in FAMILIES:
        file = exports / "portable" / name / "saved_model.pb"
        assert b"Merlin" not in file.read_bytes(), name
    assert b"MerlinDotInteraction" in (exports / "native" / "dlrm" / "saved_model.pb").read_bytes()


def test_signatures_are_named_by_the_schema(exports):
    loaded = tf.saved_model.load(str(exports / "native" / "dlrm"))
    _, inputs = loaded.signatures["serving_default"].structured_input_signature
    specs = {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in inputs.items()}
    assert specs == {
        "user_id": ("int64", [None]),
        "movie": ("int64", [None]),
        "genres__values": ("int64", [None]),
        "genres__offsets": ("int64", [None]),
        "age": ("float32", [None]),
        "taste": ("float32", [None, 3]),
    }
    outputs = loaded.signatures["serving_padded"].structured_outputs
    assert {name: spec.shape.as_list() for name, spec in outputs.items()} == {
        "click/binary_classification_task": [None, 1]
    }
    tasks = tf.saved_model.load(str(exports / "native" / "several_tasks"))
    outputs = tasks.signatures["serving_default"].structured_outputs
    assert set(outputs) == {"click/binary_classification_task", "seconds/regression_task"}
    small = tf.saved_model.load(str(exports / "portable" / "int32"))
    _, inputs = small.signatures["serving_padded"].structured_input_signature
    assert inputs["movie"].dtype == inputs["genres"].dtype == tf.int32


def test_bad_ids_and_offsets_are_errors(exports):
    for kind in ("native", "portable"):
        loaded = tf.saved_model.load(str(exports / kind / "mlp"))
        features = batch(SCHEMA, 2)
        features["movie"][1] = 41
        with pytest.raises(tf.errors.InvalidArgumentError, match="movie"):
            loaded.serve(as_features(features))
        features = batch(SCHEMA, 4)
        values, offsets = features.pop("genres")
        assert offsets[-1] > 0
        flat = {name.replace("-", "_"): tf.constant(value) for name, value in features.items()}
        serve = loaded.signatures["serving_default"]
        for wrong in (offsets + 1, offsets[:-1], offsets[::-1], offsets * 2, offsets[:0]):
            with pytest.raises(tf.errors.InvalidArgumentError, match="genres__offsets must begin with 0, not decrease"):
                serve(**flat, genres__values=tf.constant(values), genres__offsets=tf.constant(wrong))


def test_what_is_printed(tmp_path, capsys):
    model = ranking("ncf", IDS)
    model.export(tmp_path / "model")
    printed = capsys.readouterr().out
    assert f"Exported to '{tmp_path / 'model'}'" in printed
    assert "serving_default\n  in  movie: int64 [None]\n" in printed
    assert "  out click/binary_classification_task: float32 [None, 1]" in printed
    model.export(tmp_path / "model", verbose=False)
    assert not capsys.readouterr().out


def test_an_export_replaces_one_before_and_nothing_else(tmp_path):
    model = ranking("ncf", IDS)
    folder = tmp_path / "model"
    folder.mkdir()
    model.export(folder, verbose=False)
    model.set_weights([weight * 0 for weight in model.get_weights()])
    model.export(folder, verbose=False)
    features = as_features(batch(IDS, 3))
    loaded = tf.saved_model.load(str(folder))
    np.testing.assert_array_equal(loaded.serve(features), np.full((3, 1), 0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for path in (tmp_path / "other", tmp_path / "other" / "notes.txt"):
        with pytest.raises(FileExistsError, match=r"filepath must be a new folder or one of a SavedModel\. Received:"):
            model.export(path, verbose=False)


def test_a_failed_export_leaves_the_one_before(tmp_path, monkeypatch):
    model = ranking("ncf", IDS)
    model.export(tmp_path / "model", verbose=False)
    before = (tmp_path / "model" / "saved_model.pb").read_bytes()

    def fail(module, path, signatures):
        pathlib.Path(path).mkdir()
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        model.export(tmp_path / "model", verbose=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "saved_model.pb").read_bytes() == before


def test_model_without_a_schema(tmp_path):
    model = ml.Model(ml.MLPBlock([3]), ml.RegressionTask("y"))
    with pytest.raises(ValueError, match="must be built before it is exported"):
        model.export(tmp_path / "model")
    model({"a": np.ones((2, 1)), "b": np.ones((2, 4))})
    with pytest.raises(
        ValueError, match=r"input_signature must be given where the model has no schema\. Received: None"
    ):
        model.export(tmp_path / "model")
    specs = {"a": tf.TensorSpec([None], tf.float32), "b": keras.InputSpec(shape=(None, 4), dtype="float32")}
    model.export(tmp_path / "model", input_signature=[specs], verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    served = loaded.signatures["serving_default"](a=tf.ones([2]), b=tf.ones([2, 4]))
    np.testing.assert_allclose(served["y/regression_task"], model({"a": np.ones((2, 1)), "b": np.ones((2, 4))}))


def test_input_signature_replaces_the_schemas(tmp_path):
    model = ranking("mlp")
    model.export(tmp_path / "model", input_signature={"genres": tf.TensorSpec([None, 4], tf.int32)}, verbose=False)
    features = {**as_features(batch(SCHEMA, 2)), "genres": tf.constant([[1, 2, 0, 0], [0] * 4])}
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    assert list(loaded.signatures) == ["serving_default"]
    np.testing.assert_allclose(loaded.serve(features), model(features), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "onnx"}, r"format must be 'tf_saved_model'\. Received: 'onnx'"),
        ({"input_signature": {"x": None}}, r"must be of the model's features, .*Received others: \['x'\]"),
        ({"input_signature": 3}, r"must be a dictionary from feature to spec\. Received: int 3"),
        (
            {"input_signature": {"movie": tf.TensorSpec([None, None])}},
            r"The spec of 'movie' must have the shape \(None,\) or",
        ),
        ({"input_signature": {"movie": tf.TensorSpec([4])}}, r"The spec of 'movie' must have the shape \(None,\) or"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ranking("ncf", IDS).export(tmp_path / "model", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lists", [(0, 4), None], ids=["padded alone", "both"])
def test_names_that_a_signature_would_merge(tmp_path, lists):
    categorical = ml.ColumnSchema.create_categorical
    columns = ml.Schema([categorical("a_b", 9), categorical("a-b", 9, value_count=lists), categorical("g", 9)])
    model = ml.Model(ml.InputBlock(columns), ml.MLPBlock([4]), ml.BinaryClassificationTask("click"))
    with pytest.raises(ValueError, match=r"Names of a signature's inputs must be unique\. Received twice: \['a_b'\]"):
        model.export(tmp_path / "model", verbose=False)
    assert not list(tmp_path.iterdir())


def test_lists_of_numbers_have_no_padded_signature_that_would_merge_names():
    specs = {"a_b": tf.TensorSpec([None], tf.int64), "a-b": tf.RaggedTensorSpec([None, None], tf.float32)}
    names = [list(each.specs(padded=False)) for each in inputs_of(None, specs)]
    assert names == [["a_b"], ["a_b__values", "a_b__offsets"]]


def test_what_cannot_be_exported(tmp_path):
    encoder = ml.EmbeddingEncoder(IDS.select_by_name("movie"), dim=4)
    pytest.importorskip("faiss", reason="needs faiss: ApproximateTopK")
    with pytest.raises(ValueError, match=r"must be a BruteForceTopK to be exported\. Received: ApproximateTopK"):
        ml.TopKEncoder(encoder, ml.ApproximateTopK(1).index(np.eye(4))).export(tmp_path / "model")
    with pytest.raises(ValueError, match=r"index_candidates\(\) must be called before the encoder is exported"):
        ml.TopKEncoder(encoder, ml.BruteForceTopK(2)).export(tmp_path / "model")
    clash = ml.EmbeddingEncoder(ml.Schema([IDS["movie"].with_name("exclude")]), dim=4)
    with pytest.raises(ValueError, match="No feature may be called 'exclude'"):
        ml.TopKEncoder(clash, ml.BruteForceTopK(2).index(np.eye(4))).export(tmp_path / "model")


def test_an_op_without_a_portable_form_is_named(tmp_path):
    class Loss(Block):
        def call(self, inputs):
            if isinstance(inputs, keras.KerasTensor):
                return inputs
            return inputs + inbatch_softmax(inputs, inputs).loss[:, None]

    class InPython(Block):
        def call(self, inputs):
            if isinstance(inputs, keras.KerasTensor):
                return inputs
            return tf.ensure_shape(tf.numpy_function(lambda x: x, [inputs], tf.float32), inputs.shape)

    for block, message in (
        (Loss(), "a call of 'inbatch_softmax'"),
        (InPython(), "stock TensorFlow ops. Received: PyFunc"),
    ):
        model = ml.Model(ml.InputBlock(IDS, aggregation="concat"), block, ml.BinaryClassificationTask("click"))
        with pytest.raises(NotImplementedError, match=message):
            model.export(tmp_path / "model", portable=True, verbose=False)
        assert not list(tmp_path.iterdir())


def test_the_recommenders_catalogue_is_that_of_the_export(tmp_path):
    model = recommender()
    model.export(tmp_path / "model", portable=True, verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    features = as_features(batch(IDS.select_by_name("user-id"), 3))
    before = model(features).identifiers
    model.index_candidates(np.zeros((40, 8)), np.arange(40))
    np.testing.assert_array_equal(loaded.serve(features).identifiers, before)
    found = loaded.serve_exclude(features, before).identifiers
    for row, others in zip(np.asarray(found), np.asarray(before), strict=True):
        assert not set(row) & set(others)
        assert len(set(row)) == len(row)
