"""Writes a model as a TensorFlow SavedModel: a callable on features, and signatures for TensorFlow Serving."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from merlin_models._files import is_address, replacing_folder
from merlin_models.ops.portable import portable_ops
from merlin_models.serving.inputs import OFFSETS, VALUES, Input, features_of, has_padded_form

EXCLUDE = "exclude"
_GRAPHS = "saved_model.pb"
# What runs only where this library, or Python, is.
_FOREIGN = ("Merlin", "PyFunc", "EagerPyFunc")


def write_saved_model(
    model: Any, inputs: list[Input], path: str | pathlib.Path, portable: bool = False
) -> dict[str, Any]:
    """Traces a model and writes it.

    Args:
        model: an ``Exportable``.
        inputs: its features.
        path: a folder; a SavedModel that is there is replaced once the new one is complete. To an address with "://",
            which TensorFlow must know, the complete one is copied, with "saved_model.pb" at the end.
        portable: whether the graphs must consist of stock TensorFlow ops.

    Returns:
        Name of a signature -> the traced function.

    Raises:
        FileExistsError: if something else is at ``path``.
        NotImplementedError: if the model has an op without a portable form, naming it.
        ValueError: if a feature is called "exclude" where a signature takes ids to exclude.
    """
    path = os.fspath(path)
    _check_free(path)
    module, signatures, traced = tf.Module(), {}, []
    # Around all of it: TensorFlow traces the callable once more when it writes it.
    with portable_ops() if portable else contextlib.nullcontext():
        for exclude in (False, True) if model.takes_excluded else (False,):
            suffix = f"_{EXCLUDE}" if exclude else ""
            serve = _callable(model, inputs, exclude)
            setattr(module, f"serve{suffix}", serve)
            traced.append(serve.get_concrete_function())
            names = {f"serving{suffix or '_default'}": False}
            if has_padded_form(inputs):
                names[f"serving_padded{suffix}"] = True
            for name, padded in names.items():
                signatures[name] = _signature(serve, model.named_outputs, inputs, padded, exclude)
        module.model_variables = _read_by([*traced, *signatures.values()], model)
        with _copied_to(path) if is_address(path) else replacing_folder(pathlib.Path(path)) as new:
            tf.saved_model.save(module, str(new), signatures=signatures)
            if portable:
                check_portable(new)
    return signatures


def _callable(model: Any, inputs: list[Input], exclude: bool) -> Any:
    specs = [{each.name: each.callable_spec() for each in inputs}]
    if exclude:
        specs.append(tf.TensorSpec([None, None], tf.int64, name=EXCLUDE))

    def serve(features: dict[str, Any], *more: Any) -> Any:
        return model.served({each.name: each.feature(features[each.name]) for each in inputs}, *more)

    return tf.function(serve, input_signature=specs, autograph=False)


def _signature(serve: Any, named: Callable, inputs: list[Input], padded: bool, exclude: bool) -> Any:
    """The callable, traced once more around: from plain tensors to plain tensors."""
    specs = {name: spec for each in inputs for name, spec in each.specs(padded).items()}
    if exclude:
        if EXCLUDE in specs:
            raise ValueError(f"No feature may be called '{EXCLUDE}', which signatures take beside the features.")
        specs[EXCLUDE] = tf.TensorSpec([None, None], tf.int64, name=EXCLUDE)

    def signature(tensors: dict[str, Any]) -> dict[str, Any]:
        features = features_of(inputs, tensors, padded)
        return _tensors(named(serve(features, *([tensors[EXCLUDE]] if exclude else []))))

    return tf.function(signature, input_signature=[specs], autograph=False).get_concrete_function()


def _tensors(outputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Outputs of a signature: no ragged ones, and none of 16 bits, which JSON's readers do not know."""
    tensors = {}
    for name, output in outputs.items():
        if isinstance(output, tf.RaggedTensor):
            tensors |= {name + VALUES: output.flat_values, name + OFFSETS: output.row_splits}
        else:
            tensors[name] = output
    half = (tf.float16, tf.bfloat16)
    return {name: tf.cast(x, tf.float32) if x.dtype in half else tf.identity(x) for name, x in tensors.items()}


def _read_by(traced: list[Any], model: Any) -> list[tf.Variable]:
    """The model's variables that the functions read. TensorFlow's own list lacks those that our ops read in place."""
    handles = {id(outside) for function in traced for outside, _ in function.graph.captures}
    variables = [variable.value for variable in model.variables]
    return [variable for variable in variables if id(variable.handle) in handles]


def check_portable(path: str | pathlib.Path) -> None:
    """Raises NotImplementedError if a SavedModel has an op that is of this library or needs Python.

    Args:
        path: the folder of a SavedModel.

    Raises:
        NotImplementedError: that names the ops.

    Example:
        >>> import merlin_models.tf as ml
        >>> from merlin_models.serving import check_portable
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("movieId", 9)])
        >>> model = ml.Model(ml.InputBlock(schema), ml.BinaryClassificationTask("liked"))
        >>> _ = model.export("ranking", portable=True, verbose=False)
        >>> check_portable("ranking")
    """
    from tensorflow.core.protobuf import saved_model_pb2

    definition = saved_model_pb2.SavedModel.FromString((pathlib.Path(path) / _GRAPHS).read_bytes())
    foreign = set()
    for meta_graph in definition.meta_graphs:
        graph = meta_graph.graph_def
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        foreign |= {node.op for node in nodes if node.op.startswith(_FOREIGN)}
    if foreign:
        raise NotImplementedError(
            f"A portable graph must consist of stock TensorFlow ops. Received: {', '.join(sorted(foreign))}"
        )


@contextlib.contextmanager
def _copied_to(address: str) -> Iterator[pathlib.Path]:
    """A folder of this machine, which is then copied. Without the graphs, the last file, none loads what is there."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)
        if tf.io.gfile.exists(address):
            tf.io.gfile.rmtree(address)
        files = [path.relative_to(folder) for path in pathlib.Path(folder).rglob("*") if path.is_file()]
        for file in sorted(files, key=lambda file: file.name == _GRAPHS):
            target = f"{address.rstrip('/')}/{file.as_posix()}"
            tf.io.gfile.makedirs(target.rpartition("/")[0])
            tf.io.gfile.copy(str(pathlib.Path(folder, file)), target)


def _check_free(path: str) -> None:
    files = tf.io.gfile
    if files.exists(path) and not (
        files.isdir(path) and (not files.listdir(path) or files.exists(f"{path}/{_GRAPHS}"))
    ):
        raise FileExistsError(
            f"filepath must be a new folder or one of a SavedModel. Received: {path}, with other files"
        )


def describe(signatures: Mapping[str, Any]) -> str:
    """A line for each input and output of signatures."""
    lines = []
    for name, function in signatures.items():
        (inputs,), _ = function.structured_input_signature
        lines.append(f"{name}")
        for word, specs in (("in", inputs), ("out", function.structured_outputs)):
            lines += [f"  {word:<4}{key}: {spec.dtype.name} {list(spec.shape)}" for key, spec in sorted(specs.items())]
    return "\n".join(lines)
