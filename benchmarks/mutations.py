"""Good files made bad: bytes changed anywhere, and numbers changed where the format has them."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header

Mutation = Callable[[bytes, np.random.Generator], bytes]

_HEADER = 348
_INTEGERS = (0, 1, -1, 2, 3, 127, -128, 255, 1000, 32767, -32768, 65535, 2**31 - 1, -(2**31))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-40, 1e-300, 1e-7, 0.01, 1e3, 1e7, 1e20, -1e20, 3e38, 1e300, np.nan, np.inf, -np.inf)
# As they would stand in a file: what JSON has no number for, numbers no float holds, halves of a character.
_TEXTS = (
    *("null", "true", "[]", "{}", '""', '"x"', '"\\ud800"', '"\\u0000"', "NaN", "-Infinity", "0", "-1", "1e-300"),
    *("1e400", "1" + 400 * "0", "1" + 5000 * "0", "1.5", "1e20", 2000 * "[" + 2000 * "]", '"' + 300 * "a" + '"'),
)


def changed_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bits turned, bytes overwritten, cut out, put in, repeated or lost at the end."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        start = int(rng.integers(0, max(len(data), 1)))
        length = int(rng.integers(1, 2 + min(64, len(data))))
        match int(rng.integers(7)):
            case 0 if start < len(data):
                data[start] ^= 1 << int(rng.integers(8))
            case 1:
                data[start : start + length] = rng.bytes(len(data[start : start + length]))
            case 2:
                data[start : start + length] = bytes(len(data[start : start + length]))
            case 3:
                del data[start : start + length]
            case 4:
                data[start:start] = rng.bytes(length)
            case 5:
                data[start:start] = data[start : start + length]
            case _:
                del data[start:]
    return bytes(data)


def changed_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Some fields of a NIfTI header set to numbers that are legal for their type."""
    fields = Nifti1Header.template_dtype.fields
    assert fields is not None
    data = bytearray(content)
    names = list(fields)
    for _ in range(int(rng.integers(1, 4))):
        dtype, offset = fields[names[int(rng.integers(len(names)))]][:2]
        base = dtype.base
        place = offset + base.itemsize * int(rng.integers(max(dtype.itemsize // base.itemsize, 1)))
        if base.kind not in "iuf":
            data[place : place + base.itemsize] = rng.bytes(base.itemsize)
        else:
            data[place : place + base.itemsize] = _number(base, rng).tobytes()
    return bytes(data)


def changed_voxels(content: bytes, rng: np.random.Generator) -> bytes:
    """A voxel, a row of them or a share of all set to one number, taking the image for float32."""
    offset = int(np.frombuffer(content[108:112], "<f4")[0]) if len(content) > _HEADER else 0
    values = np.frombuffer(content[offset:], "<f4", (len(content) - offset) // 4).copy()
    return content[:offset] + _spoilt(values, rng).tobytes()


def compressed(mutation: Mutation) -> Mutation:
    """The same below gzip: the checksum is right again."""

    def change(content: bytes, rng: np.random.Generator) -> bytes:
        return gzip.compress(mutation(gzip.decompress(content), rng), compresslevel=1, mtime=0)

    return change


def changed_json(content: bytes, rng: np.random.Generator) -> bytes:
    """One or two values anywhere in a JSON file replaced, left out or doubled; a value may be one no float holds."""
    return _changed_text(json.loads(content), rng).encode("utf-8", "surrogatepass")


def changed_tensors(content: bytes, rng: np.random.Generator) -> bytes:
    """In a safetensors file one or two values of the header, or of its own JSON text, or numbers of an array."""
    length = int(struct.unpack("<Q", content[:8])[0])
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    arrays = [name for name in header if name != "__metadata__"]
    match int(rng.integers(3)):
        case 0:
            text = _changed_text(header, rng)
        case 1:
            entries = header["__metadata__"]
            name = list(entries)[int(rng.integers(len(entries)))]
            entries[name] = _changed_text(json.loads(entries[name]), rng)
            text = json.dumps(header)
        case _:
            entry = header[arrays[int(rng.integers(len(arrays)))]]
            first, last = entry["data_offsets"]
            dtype = {"F32": "<f4", "F64": "<f8", "U8": "u1", "I64": "<i8", "BOOL": "u1"}[entry["dtype"]]
            data[first:last] = _spoilt(np.frombuffer(bytes(data[first:last]), dtype).copy(), rng).tobytes()
            text = json.dumps(header)
    encoded = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + bytes(data)


def _number(dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    special: tuple[float, ...] = _FLOATS if dtype.kind == "f" else _INTEGERS
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(special[int(rng.integers(len(special)))]).astype(dtype)


def _spoilt(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    number = _number(values.dtype, rng)
    if not values.size:
        return values
    match int(rng.integers(4)):
        case 0:
            values[int(rng.integers(values.size))] = number
        case 1:
            start = int(rng.integers(values.size))
            values[start : start + int(rng.integers(1, 200))] = number
        case 2:
            values[rng.random(values.size) < rng.random()] = number
        case _:
            with np.errstate(over="ignore", invalid="ignore"):
                values = (values * number).astype(values.dtype)
    return values


def _changed_text(content: Any, rng: np.random.Generator) -> str:
    """JSON with one or two values replaced; numbers that JSON cannot hold are put in as text."""
    substitutes: dict[str, str] = {}
    for _ in range(int(rng.integers(1, 3))):
        places = list(_places(content))
        if not places:
            break
        holder, key = places[int(rng.integers(len(places)))]
        match int(rng.integers(6)):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, holder[key])
            case 1 if isinstance(holder, dict):
                holder[f"{key}2"] = holder.pop(key)
            case _:
                name = f"substitute {len(substitutes)}"
                substitutes[name] = _TEXTS[int(rng.integers(len(_TEXTS)))]
                holder[key] = name
    text = json.dumps(content)
    for name, substitute in substitutes.items():
        text = text.replace(f'"{name}"', substitute)
    return text


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every value of a JSON text: what holds it, and under which key."""
    if not isinstance(content, dict | list):
        return []
    pairs = list(content.items()) if isinstance(content, dict) else list(enumerate(content))
    return [(content, key) for key, _ in pairs] + [place for _, value in pairs for place in _places(value)]
