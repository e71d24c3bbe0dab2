"""Records as tf.Example messages of named bytes: what TFDS reads, without TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from clue_jax.errors import DataError


def encode_record(features: dict[str, bytes]) -> bytes:
    """A tf.Example with one bytes value per feature; equal features give equal bytes.

    Those that protobuf's deterministic serialisation gives, several times faster: every level of
    the message is a tag, a length and what is inside it, and features are in order of their names.
    """
    parts: list[bytes] = []
    for name in sorted(features):
        parts += (_head(name, len(features[name])), features[name])
    content = b"".join(parts)
    return b"\x0a" + _varint(len(content)) + content  # Example.features


@functools.lru_cache(maxsize=1 << 16)
def _head(name: str, size: int) -> bytes:
    """What comes before a feature's value of `size` bytes; sizes repeat from record to record."""
    head = b""
    for tag in (b"\x0a", b"\x0a", b"\x12"):  # BytesList.value, Feature.bytes_list, the map's value
        head = tag + _varint(size + len(head)) + head
    key = name.encode("ascii")
    head = b"\x0a" + _varint(len(key)) + key + head
    return b"\x0a" + _varint(size + len(head)) + head


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have the high bit set."""
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))


def decode_texts(values: list[bytes]) -> np.ndarray:
    """UTF-8 values as str, [n] object; raises DataError where they are none."""
    try:
        return np.array([value.decode("utf-8") for value in values], object)
    except UnicodeDecodeError as error:
        raise DataError("a record holds text that is not UTF-8") from error


def decode_features(records: Sequence[bytes], names: Sequence[str]) -> dict[str, list[bytes]]:
    """The bytes of each named feature, record by record.

    Raises:
        DataError: a record is not a tf.Example with those features; names its number.
    """
    columns: dict[str, list[bytes]] = {name: [] for name in names}
    for number, record in enumerate(records):
        try:
            features = tf_example_pb2.Example.FromString(record).features.feature
            for name, column in columns.items():
                column.append(features[name].bytes_list.value[0])
        except Exception as error:  # the protobuf runtimes raise classes of their own
            raise DataError(f"record {number}: not one of this format ({error})") from error
    return columns
