"""Graph operations that touch files, the network or Python: refused unless the user admits them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from strop.core.errors import UnsafeModelError, message

_READS_OR_WRITES = frozenset(
    {
        "CSVDataset", "CSVDatasetV2", "CacheDataset", "CacheDatasetV2", "CreateSummaryDbWriter",
        "CreateSummaryFileWriter", "DTensorRestoreV2", "DatasetToTFRecord", "DebugGradientIdentity",
        "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount", "DebugNumericSummary",
        "DistributedSave", "DumpTensor", "ExperimentalCSVDataset", "ExperimentalDatasetToTFRecord",
        "ExperimentalLMDBDataset", "ExperimentalMatchingFilesDataset", "ExperimentalSqlDataset",
        "FileSystemSetConfiguration", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2",
        "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "GenerateVocabRemapping", "ImmutableConst",
        "LMDBDataset", "LMDBReader", "ListSnapshotChunksDataset", "LoadAndRemapMatrix", "LoadDataset",
        "MatchingFiles", "MatchingFilesDataset", "MergeV2Checkpoints", "ReadFile", "RecordInput", "Restore",
        "RestoreSlice", "RestoreV2", "Save", "SaveDataset", "SaveDatasetV2", "SaveSlices", "SaveV2",
        "SnapshotChunkDataset", "SnapshotDataset", "SnapshotDatasetReader", "SnapshotDatasetV2",
        "SnapshotNestedDatasetReader", "SqlDataset", "TFRecordDataset", "TFRecordDatasetV2", "TFRecordReader",
        "TFRecordReaderV2", "TextLineDataset", "TextLineReader", "TextLineReaderV2", "WholeFileReader",
        "WholeFileReaderV2", "WriteFile",
    }
)  # fmt: skip
_CONNECTS = frozenset(
    {
        "DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3", "DataServiceDatasetV4",
        "RemoteCall", "RpcCall", "RpcClient", "RpcServer", "RpcServerRegister", "RpcServerStart",
    }
)  # fmt: skip
_RUNS_PYTHON = frozenset({"EagerPyFunc", "PyFunc", "PyFuncStateless"})
# What a checkpoint's own restoring does, and no more.
_RESTORES = frozenset({"Restore", "RestoreSlice", "RestoreV2"})


def refuse_unsafe(
    nodes: Iterable[Any], path: Path, allow: Collection[str], *, may_restore: bool = False
) -> None:
    """Raise for the first node that touches files or runs Python, unless `allow` admits its kind.

    Tables that are filled from a text file are admitted: it is the vocabulary that a SavedModel carries along.

    Args:
        nodes: What runs when the model is loaded or used; see `upstream` and `with_called`.
        path: The model, for the message.
        allow: Words that admit what is refused (``file-ops``, ``python-ops``).
        may_restore: Whether reading a checkpoint is what these nodes are for.

    Raises:
        UnsafeModelError: Naming node, operation and the word that admits it.
    """
    for node in nodes:
        found = _danger(node)
        if found is None or found[0] in allow or (may_restore and node.op in _RESTORES):
            continue
        kind, does = found
        raise UnsafeModelError(
            message(
                f"'{path}' has the operation {node.op} ('{node.name}'), which {does}.",
                "If you trust where the model comes from, allow it:",
                next_step=f"--allow {kind}",
            ),
            allow=kind,
        )


def upstream(definition: Any, ends: Iterable[str]) -> Iterator[Any]:
    """Yield the nodes of a graph that the nodes or tensors `ends` wait for, themselves among them."""
    nodes = {node.name: node for node in definition.node}
    seen: set[str] = set()
    open_ends = [_node(name) for name in ends]
    while open_ends:
        name = open_ends.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        yield nodes[name]
        open_ends += [_node(read) for read in nodes[name].input]


def with_called(library: Any, nodes: Iterable[Any], called: Iterable[str] = ()) -> Iterator[Any]:
    """Yield `nodes`, and those of the functions that they call, and of those called by name, however deep.

    Args:
        library: A GraphDef's functions.
        nodes: Where to begin.
        called: Functions that are called besides, by name.
    """
    functions = {function.signature.name: function for function in library.function}
    seen: set[str] = set()
    open_ends = list(called)
    for node in nodes:
        yield node
        open_ends += _calls(node)
    while open_ends:
        name = open_ends.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in functions[name].node_def:
            yield node
            open_ends += _calls(node)


def _calls(node: Any) -> Sequence[str]:
    """Return what may be functions that a node calls: by its kind, or named in its attributes."""
    found = [node.op]
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            found.append(attribute.func.name)
        found += [function.name for function in attribute.list.func]
    return found


def _danger(node: Any) -> tuple[str, str] | None:
    """Return the word that admits a node and what it does; None for a harmless one."""
    if node.op in _READS_OR_WRITES:
        return "file-ops", "reads or writes files"
    if node.op == "PrintV2" and node.attr["output_stream"].s.startswith(b"file://"):
        return "file-ops", "reads or writes files"
    if node.op in _CONNECTS:
        return "file-ops", "connects to other machines"
    if node.op in _RUNS_PYTHON:
        return "python-ops", "runs Python code"
    return None


def _node(name: str) -> str:
    return name.removeprefix("^").split(":")[0]
