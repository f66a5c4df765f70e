"""The Chakra execution trace schema as data, compiled to message classes by protobuf; no generated code.

    file = GlobalMetadata, then Nodes, each preceded by its length (varint)

Numbers and names are those of MLCommons' ``et_def.proto`` (package ChakraProtoMsg, proto3), so that every reader of
that schema reads these files and the other way round. Fields that we know nothing of (storage) are kept by protobuf
when a file is read. Source: github.com/mlcommons/chakra, schema/protobuf/et_def.proto (2026-06). Needs protobuf
(``pip install attnsim[formats]``).
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from traces.errors import InputError

PACKAGE = "ChakraProtoMsg"
METADATA, MEM_LOAD, MEM_STORE, COMP, SEND, RECV, COLL = 1, 2, 3, 4, 5, 6, 7
NODE_TYPES = ("INVALID_NODE", "METADATA_NODE", "MEM_LOAD_NODE", "MEM_STORE_NODE", "COMP_NODE", "COMM_SEND_NODE",
              "COMM_RECV_NODE", "COMM_COLL_NODE")  # fmt: skip
COLLECTIVES = ("ALL_REDUCE", "REDUCE", "ALL_GATHER", "GATHER", "SCATTER", "BROADCAST", "ALL_TO_ALL", "REDUCE_SCATTER",
               "REDUCE_SCATTER_BLOCK", "BARRIER")  # fmt: skip
SCALARS = ("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64",
           "sfixed32", "sfixed64", "bool", "string", "bytes")  # fmt: skip

# message: (field, number, type); types with [] are repeated; a name in capitals is a message or an enumeration
MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "GlobalMetadata": (("version", 1, "string"), ("attr", 2, "AttributeProto[]")),
    "IOInfo": (("values", 1, "string"), ("shapes", 2, "string"), ("types", 3, "string")),
    "Tensor": (("tensor_id", 1, "uint64"), ("storage_id", 2, "uint64"), ("offset", 3, "uint64"),
               ("num_elem", 4, "uint64"), ("elem_bytes", 5, "uint64"), ("device", 6, "string")),
    "Node": (("id", 1, "uint64"), ("name", 2, "string"), ("type", 3, "NodeType"), ("ctrl_deps", 4, "uint64[]"),
             ("data_deps", 5, "uint64[]"), ("start_time_micros", 6, "uint64"), ("duration_micros", 7, "uint64"),
             ("inputs", 8, "IOInfo"), ("outputs", 9, "IOInfo"), ("attr", 10, "AttributeProto[]")),
}  # fmt: skip
ENUMERATIONS = {"NodeType": NODE_TYPES, "CollectiveCommType": COLLECTIVES}


@lru_cache(maxsize=1)
def load_schema() -> Any:
    """Classes ``GlobalMetadata``, ``Node``, ``AttributeProto`` and so on.

    Raises
    ------
    InputError
        Where protobuf is missing.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise InputError("Chakra traces need the package protobuf", remedy="pip install attnsim[formats]") from error
    file = descriptor_pb2.FileDescriptorProto(name="attnsim/et_def.proto", package=PACKAGE, syntax="proto3")
    for name, values in ENUMERATIONS.items():
        enumeration = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enumeration.value.add(name=value, number=number)
    for scalar in SCALARS:
        _add_fields(file.message_type.add(name=f"{scalar.capitalize()}List"), (("values", 1, f"{scalar}[]"),))
    _add_attribute(file.message_type.add(name="AttributeProto"))
    for name, fields in MESSAGES.items():
        _add_fields(file.message_type.add(name=name), fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = message_factory.GetMessageClassesForFiles([file.name], pool)
    return SimpleNamespace(**{name.rpartition(".")[2]: each for name, each in classes.items()})


def _add_attribute(message: Any) -> None:
    """A name and one value: of the i-th scalar type at 3 + 2 i, or a list of such at 4 + 2 i."""
    _add_fields(message, (("name", 1, "string"), ("doc_string", 2, "string")))
    message.oneof_decl.add(name="value")
    for i, scalar in enumerate(SCALARS):
        fields = ((f"{scalar}_val", 3 + 2 * i, scalar), (f"{scalar}_list", 4 + 2 * i, f"{scalar.capitalize()}List"))
        _add_fields(message, fields, oneof=0)


def _add_fields(message: Any, fields: tuple[tuple[str, int, str], ...], oneof: int | None = None) -> None:
    for name, number, kind in fields:
        field = message.field.add(name=name, number=number)
        if oneof is not None:
            field.oneof_index = oneof
        repeated, kind = kind.endswith("[]"), kind.removesuffix("[]")
        field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        if kind in SCALARS:
            field.type = getattr(field, f"TYPE_{kind.upper()}")
        else:
            field.type = field.TYPE_ENUM if kind in ENUMERATIONS else field.TYPE_MESSAGE
            field.type_name = f".{PACKAGE}.{kind}"
