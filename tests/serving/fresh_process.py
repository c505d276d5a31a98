"""Run in a process of its own: loads exports of a folder, and compares their answers with the recorded ones.

    python fresh_process.py FOLDER [without]

"without": where merlin_models cannot be imported. Prints "all equal" and how many answers that were.
"""

import pathlib
import pickle
import sys

if "without" in sys.argv:
    sys.modules["merlin_models"] = None  # what makes its import an ImportError
    sys.modules["merlin_standard_lib"] = None

import numpy as np
import tensorflow as tf


def ragged(value):
    return tf.RaggedTensor.from_row_splits(*value) if isinstance(value, tuple) else tf.constant(value)


def flat(features):
    tensors = {}
    for name, value in by_tensor_name(features).items():
        if isinstance(value, tuple):
            tensors |= {f"{name}__values": tf.constant(value[0]), f"{name}__offsets": tf.constant(value[1])}
        else:
            tensors[name] = tf.constant(value)
    return tensors


def padded(features):
    features = by_tensor_name(features)
    return {name: ragged(v).to_tensor() if isinstance(v, tuple) else ragged(v) for name, v in features.items()}


def by_tensor_name(features):
    return {name.replace("-", "_"): value for name, value in features.items()}


def named(outputs, like):
    """Outputs of the callable by the names that signatures have."""
    if hasattr(outputs, "_asdict"):
        outputs = outputs._asdict()
    if not isinstance(outputs, dict):
        outputs = {next(iter(like)).removesuffix("__values"): outputs}
    tensors = {}
    for name, output in outputs.items():
        if isinstance(output, tf.RaggedTensor):
            tensors |= {f"{name}__values": output.flat_values, f"{name}__offsets": output.row_splits}
        else:
            tensors[name] = output
    return tensors


def check(loaded, case, tolerance):
    """The number of answers compared."""
    features, exclude, expected = case["features"], case["exclude"], case["expected"]
    more = {} if exclude is None else {"exclude": tf.constant(exclude)}
    suffix = "" if exclude is None else "_exclude"
    signatures = loaded.signatures
    scalars = {name: v[:, np.newaxis] for name, v in features.items() if not isinstance(v, tuple) and v.ndim == 1}
    serve = getattr(loaded, f"serve{suffix}")
    callable_features = {name: ragged(value) for name, value in features.items()}
    answers = {
        "serve": named(serve(callable_features, *more.values()), expected),
        "flat": signatures[f"serving{suffix or '_default'}"](**flat(features), **more),
    }
    if len(next(iter(expected.values()))) == 1:
        answers["serve of columns"] = named(serve({**callable_features, **scalars}, *more.values()), expected)
    lists = any(isinstance(value, tuple) for value in features.values())
    assert (f"serving_padded{suffix}" in signatures) == lists
    if lists:
        answers["padded"] = signatures[f"serving_padded{suffix}"](**padded(features), **more)
    for form, outputs in answers.items():
        assert set(outputs) == set(expected), (form, set(outputs), set(expected))
        for name, right in expected.items():
            output = np.asarray(tf.cast(outputs[name], "float64"))
            assert form == "serve" or form == "serve of columns" or outputs[name].dtype.size >= 4, "16 bits for JSON"
            np.testing.assert_allclose(output, right, rtol=tolerance, atol=tolerance, err_msg=f"{form} {name}")
    return len(answers)


def main(folder):
    compared = 0
    for file in sorted(folder.glob("*.pickle")):
        recorded = pickle.loads(file.read_bytes())
        loaded = tf.saved_model.load(str(file.with_suffix("")))
        for case in recorded["cases"]:
            try:
                compared += check(loaded, case, recorded["tolerance"])
            except Exception as error:
                error.add_note(f"export: {file.stem}, rows: {[len(v) for v in case['expected'].values()]}")
                raise
    return compared


if __name__ == "__main__":
    compared = main(pathlib.Path(sys.argv[1]))
    if "without" in sys.argv:
        native = pathlib.Path(sys.argv[1]).parent / "native"
        try:
            tf.saved_model.load(str(next(native.glob("*.pickle")).with_suffix("")))
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
    else:
        import keras

        for file in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
            recorded = pickle.loads(file.with_suffix(".keras_pickle").read_bytes())
            model = keras.models.load_model(file)
            for case in recorded["cases"]:
                features = {name: ragged(value) for name, value in case["features"].items()}
                outputs = named(model(features, training=False), case["expected"])
                for name, right in case["expected"].items():
                    output, tolerance = np.asarray(tf.cast(outputs[name], "float64")), recorded["tolerance_of_keras"]
                    np.testing.assert_allclose(output, right, rtol=tolerance, atol=tolerance, err_msg=file.stem)
                compared += 1
    print(f"all equal: {compared}")
